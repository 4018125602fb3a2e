import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

import { defineConfig } from "vite";

const OUT = "../cpa/server/panel";

/** Writes `x.gz` beside every file that gets smaller by it; the proxy sends those to browsers that take them. */
const compressed = {
  name: "compressed",
  closeBundle() {
    for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath ?? entry.path, entry.name);
      const plain = readFileSync(path);
      const packed = gzipSync(plain, { level: 9 });
      if (packed.length < plain.length) writeFileSync(`${path}.gz`, packed);
    }
  },
};

export default defineConfig({
  base: "/management/",
  plugins: [compressed],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    // The policy of the page allows files of ours and nothing in the page itself.
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rollupOptions: { input: "management.html" },
  },
});
