// What the page is given: the dashboard's file as it is, and what Prometheus answered to each of its queries.
import type { FieldConfigSource } from '@grafana/data';
import type { VizLegendOptions } from '@grafana/schema';
import type { BigValueColorMode, BigValueGraphMode } from '@grafana/ui';

export interface Picture {
  dashboard: { panels: Panel[]; timezone: string };
  window: { begin_s: number; end_s: number; step_s: number };
  answers: Answer[];
  width_px: number;
}

export interface Panel {
  id: number;
  type: 'stat' | 'timeseries';
  title: string;
  description: string;
  fieldConfig: FieldConfigSource;
  options: TimeSeriesOptions & StatOptions;
  targets: Array<{ refId: string; legendFormat: string }>;
  gridPos: { x: number; y: number; w: number; h: number };
}

interface TimeSeriesOptions {
  legend: VizLegendOptions;
}

interface StatOptions {
  reduceOptions: { calcs: string[] };
  colorMode: BigValueColorMode;
  graphMode: BigValueGraphMode;
}

export interface Answer {
  panel: number;
  refId: string;
  series: Array<{ metric: Record<string, string>; values: Array<[number, string]> }>;
}
