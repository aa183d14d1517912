import { defineConfig } from "vitest/config";

// The built files are committed and embedded in the binary: their names stay the same from build to build.
export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 800,
    modulePreload: false,
    rollupOptions: {
      output: {
        entryFileNames: "assets/app.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
        manualChunks: (id) => (/node_modules\/(echarts|zrender|tslib)/.test(id) ? "charts" : undefined),
      },
    },
  },
  server: { proxy: { "/api": "http://127.0.0.1:7700" } },
  test: { include: ["src/**/*.test.ts"] },
});
