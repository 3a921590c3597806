// A mask as a small picture for lists: its shape, fitted and centred.

import type { Attachment } from 'svelte/attachments';
import { packed, rasterise } from '../../lib/editor/raster';
import type { Mask } from '../../lib/masks';

/** Draw a mask into a small canvas, again when it changes. */
export function silhouette(
  mask: Mask,
  rgb: readonly [number, number, number],
): Attachment<HTMLCanvasElement> {
  return (canvas) => {
    const side = Math.round(Number(canvas.dataset.side ?? 28) * Math.min(2, devicePixelRatio));
    canvas.width = canvas.height = side;
    const context = canvas.getContext('2d');
    if (!context || mask.area === 0) return;
    const size = (Math.max(mask.w, mask.h) / side) * 1.15;
    const x0 = mask.x0 + mask.w / 2 - (side / 2) * size;
    const y0 = mask.y0 + mask.h / 2 - (side / 2) * size;
    const data = new ImageData(side, side);
    const colour = packed(rgb, 1);
    const style = { fill: colour, edge: colour, halo: 0, reach: 1 };
    const grid = { x0, y0, width: side, height: side, size };
    rasterise(new Uint32Array(data.data.buffer), grid, [{ mask, style }]);
    context.putImageData(data, 0, 0);
  };
}
