// One panel: Grafana's frame around Grafana's chart or figure.
import { dateTime, getFieldDisplayValues, type GrafanaTheme2, type TimeRange } from '@grafana/data';
import { BigValue, BigValueTextMode, PanelChrome, TimeSeries, useTheme2 } from '@grafana/ui';
import { framesOf } from './frames';
import type { Panel, Picture } from './picture';

const COLUMNS = 24;
const ROW_PX = 30;
const GAP_PX = 8;

interface Props {
  panel: Panel;
  picture: Picture;
}

// Where Grafana's grid puts a panel on a page of this width.
function place({ x, y, w, h }: Panel['gridPos'], page_px: number) {
  const column_px = (page_px - GAP_PX * (COLUMNS - 1)) / COLUMNS;
  return {
    left: x * (column_px + GAP_PX),
    top: y * (ROW_PX + GAP_PX),
    width: w * column_px + (w - 1) * GAP_PX,
    height: h * ROW_PX + (h - 1) * GAP_PX,
  };
}

export function PanelView({ panel, picture, page_px }: Props & { page_px: number }) {
  const { width, height, ...position } = place(panel.gridPos, page_px);
  const isStat = panel.type === 'stat';
  const Content = isStat ? Stat : Chart;
  return (
    <div style={{ position: 'absolute', width, height, ...position }}>
      <PanelChrome
        title={panel.title}
        description={panel.description}
        width={width}
        height={height}
        padding={isStat ? 'none' : 'md'}
      >
        {(inner_px, tall_px) => <Content panel={panel} picture={picture} width={inner_px} height={tall_px} />}
      </PanelChrome>
    </div>
  );
}

type ContentProps = Props & { width: number; height: number };

function Chart({ panel, picture, ...size }: ContentProps) {
  const theme = useTheme2();
  const frames = framesOf(panel, picture, theme);
  if (frames.length === 0) {
    return <NoData theme={theme} />;
  }
  return (
    <TimeSeries
      frames={frames}
      timeRange={timeRange(picture)}
      timeZone={picture.dashboard.timezone}
      legend={{ ...panel.options.legend, showLegend: panel.options.legend.showLegend ?? true }}
      {...size}
    />
  );
}

function Stat({ panel, picture, ...size }: ContentProps) {
  const theme = useTheme2();
  const { reduceOptions, colorMode, graphMode } = panel.options;
  const [value] = getFieldDisplayValues({
    data: framesOf(panel, picture, theme),
    fieldConfig: panel.fieldConfig,
    reduceOptions,
    replaceVariables: (text) => text,
    sparkline: graphMode !== 'none',
    theme,
    timeZone: picture.dashboard.timezone,
  });
  if (!value) {
    return <NoData theme={theme} />;
  }
  const sparkline = value.sparkline && { ...value.sparkline, timeRange: timeRange(picture) };
  return (
    <BigValue
      value={value.display}
      sparkline={sparkline}
      colorMode={colorMode}
      graphMode={graphMode}
      textMode={BigValueTextMode.Auto}
      count={1}
      theme={theme}
      {...size}
    />
  );
}

function NoData({ theme }: { theme: GrafanaTheme2 }) {
  return <p style={{ textAlign: 'center', color: theme.colors.text.secondary }}>No data</p>;
}

function timeRange({ window }: Picture): TimeRange {
  const [from, to] = [dateTime(window.begin_s * 1000), dateTime(window.end_s * 1000)];
  return { from, to, raw: { from, to } };
}
