// The whole dashboard, as Grafana's kiosk mode shows it: panels on the dark theme's canvas, and nothing around them.
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';
import { createTheme, ThemeContext } from '@grafana/data';
import { GlobalStyles } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import { PanelView } from './panels';
import type { Picture } from './picture';

const PADDING_PX = 16;

function Dashboard({ picture }: { picture: Picture }) {
  const page_px = picture.width_px - 2 * PADDING_PX;
  return (
    <ThemeContext.Provider value={createTheme({ colors: { mode: 'dark' } })}>
      <GlobalStyles />
      <div style={{ position: 'relative', margin: PADDING_PX }}>
        {picture.dashboard.panels.map((panel) => (
          <PanelView key={panel.id} panel={panel} picture={picture} page_px={page_px} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
}

async function draw(page: Element) {
  const picture: Picture = await (await fetch('picture.json')).json();
  // A canvas does not draw again when a font arrives.
  await Promise.all(['400 12px Inter', '500 12px Inter'].map((font) => document.fonts.load(font)));
  createRoot(page).render(<Dashboard picture={picture} />);
}

const page = document.getElementById('page');
if (page) {
  void draw(page);
}
