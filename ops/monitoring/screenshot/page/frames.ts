// Prometheus' answers as Grafana's data frames, with the panel's field configuration applied by Grafana.
import {
  applyFieldOverrides,
  type DataFrame,
  type FieldConfig,
  FieldConfigOptionsRegistry,
  FieldColorModeId,
  type FieldConfigPropertyItem,
  FieldType,
  type GrafanaTheme2,
  identityOverrideProcessor,
  renderLegendFormat,
  ThresholdsMode,
} from '@grafana/data';
import { GraphDrawStyle, LineInterpolation, StackingMode, VisibilityMode } from '@grafana/schema';
import type { Answer, Panel, Picture } from './picture';

// What Grafana fills in where a dashboard says nothing. It is in the application, not in its libraries.
const DEFAULTS: Record<Panel['type'], FieldConfig> = {
  stat: { color: { mode: FieldColorModeId.Thresholds } },
  timeseries: {
    color: { mode: FieldColorModeId.PaletteClassic },
    custom: {
      drawStyle: GraphDrawStyle.Line,
      lineInterpolation: LineInterpolation.Linear,
      lineWidth: 1,
      fillOpacity: 0,
      pointSize: 5,
      showPoints: VisibilityMode.Auto,
      spanNulls: false,
      stacking: { mode: StackingMode.None, group: 'A' },
      axisGridShow: true,
    },
  },
};
const THRESHOLDS = {
  mode: ThresholdsMode.Absolute,
  steps: [
    { value: -Infinity, color: 'green' },
    { value: 80, color: 'red' },
  ],
};
const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'noValue', 'mappings', 'thresholds'];

export function framesOf(panel: Panel, { answers, window, dashboard }: Picture, theme: GrafanaTheme2): DataFrame[] {
  const { defaults, overrides } = panel.fieldConfig;
  const custom = { ...DEFAULTS[panel.type].custom, ...defaults.custom };
  return applyFieldOverrides({
    data: answers
      .filter((answer) => answer.panel === panel.id)
      .flatMap((answer) => rawFrames(answer, panel, window.step_s)),
    fieldConfig: { defaults: { thresholds: THRESHOLDS, ...DEFAULTS[panel.type], ...defaults, custom }, overrides },
    fieldConfigRegistry: new FieldConfigOptionsRegistry(() => [
      ...STANDARD.map((id) => property(id)),
      ...Object.keys(custom).map((id) => property(id, true)),
    ]),
    replaceVariables: (text) => text,
    theme,
    timeZone: dashboard.timezone,
  });
}

function rawFrames({ refId, series }: Answer, panel: Panel, step_s: number): DataFrame[] {
  const legend = panel.targets.find((target) => target.refId === refId)?.legendFormat;
  return series.map(({ metric, values }) => ({
    refId,
    length: values.length,
    fields: [
      // The interval tells Grafana where points are missing.
      {
        name: 'Time',
        type: FieldType.time,
        config: { interval: step_s * 1000 },
        values: values.map(([at_s]) => at_s * 1000),
      },
      {
        name: 'Value',
        type: FieldType.number,
        labels: metric,
        config: legend ? { displayNameFromDS: renderLegendFormat(legend, metric) } : {},
        values: values.map(([, text]) => finite(Number(text))),
      },
    ],
  }));
}

// Nothing divided by nothing is no point: Grafana's time series draw none.
function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}

function property(id: string, isCustom = false): FieldConfigPropertyItem {
  return {
    id: isCustom ? `custom.${id}` : id,
    path: id,
    name: id,
    isCustom,
    process: identityOverrideProcessor,
    shouldApply: () => true,
    // Nobody edits here.
    editor: () => null,
    override: () => null,
  };
}
