/** Line drawings of the navigation; their names stand beside them. */
const PATHS = {
  overview: "M3 17V9M8 17V4M13 17v-6M18 17V7",
  requests: "M2 10h4l3-6 4 12 3-6h3",
  plugins: "M7 3v4M13 3v4M4 7h12v3a6 6 0 0 1-12 0zM10 16v3",
  credentials: "M12.5 7.5a4 4 0 1 0-3.4 4L11 13.5h2v2h2v2h3v-3l-5.6-5.6M7.5 6.5h.01",
  models: "M10 2l7 4v8l-7 4-7-4V6zM3 6l7 4 7-4M10 10v8",
  config: "M3 5h8M15 5h2M3 10h2M9 10h8M3 15h8M15 15h2M13 3v4M7 8v4M13 13v4",
  logs: "M4 4h12M4 8h8M4 12h12M4 16h6",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="nav-icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
