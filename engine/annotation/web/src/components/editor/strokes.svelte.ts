// A stroke of brush or eraser while it is drawn.

import { takenAt } from '../../lib/editor/hit';
import type { At } from '../../lib/editor/pointer';
import type { Scene } from '../../lib/editor/scene';
import { thinned, toolUsed } from '../../lib/editor/tools';
import { newId } from '../../lib/sync/clock';
import type { EditorSession } from './session.svelte';

export class Strokes {
  live: Scene['stroke'] = $state.raw(null);

  constructor(private readonly session: EditorSession) {}

  begin(mode: 'brush' | 'eraser', at: At): void {
    const { session } = this;
    if (session.mode === 'readonly') return;
    const point = session.imagePoint(at);
    // Taking away needs a mask: the one under the brush comes into hand.
    if (!session.doc.current && (mode === 'eraser' || session.mode === 'review')) {
      const object = takenAt(session.doc.objects, ...point, null);
      if (object) session.dispatch({ type: 'select', id: object.id });
    }
    session.stopPreview();
    this.live = { mode, radius: session.tool.radius / session.view.scale, points: [point] };
  }

  grow(places: readonly At[]): void {
    const { live, session } = this;
    if (!live) return;
    // Beyond the image's border the brush still paints what it covers of the image.
    const points = [...live.points, ...places.map((at) => session.imagePoint(at, true))];
    this.live = { ...live, points };
  }

  end(): void {
    const { live, session } = this;
    this.live = null;
    if (!live) return;
    const radius = Math.max(0.5, Math.round(live.radius * 100) / 100);
    const points = thinned(live.points, radius);
    session.tool = toolUsed(session.tool);
    session.dispatch({ type: 'stroke', mode: live.mode, radius, points, newId: newId() });
  }

  cancel(): void {
    this.live = null;
  }
}
