// Colors of numbers from 0 to 1, and of statuses. Each scale is of even lightness steps, for all kinds of sight.

const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis, five of its colors

export function scaled(value) {
  const at = Math.min(Math.max(value, 0), 1) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  return SCALE[low].map((from, channel) => Math.round(from + (SCALE[low + 1][channel] - from) * (at - low)));
}

export const css = ([red, green, blue]) => `rgb(${red}, ${green}, ${blue})`;

// Black or white, whichever is easier to read on this color (WCAG 2, relative luminance).
export function textOn(color) {
  const [red, green, blue] = color.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

export const STATUSES = [
  ["ok", [47, 111, 189]], ["byte", [201, 93, 13]], ["special", [178, 36, 116]], ["unused", [128, 128, 128]],
  ["unseen", [120, 94, 180]],
];
