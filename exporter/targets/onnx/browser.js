"use strict";
// How the worker of a page loads an ONNX model: with onnxruntime-web, as plain WebAssembly.

(() => {
  const folder = "onnxruntime-web/dist/";

  /** Starts onnxruntime-web from the files below `npm`; it has one thread where the page is not isolated. */
  self.startRuntime = async ({ npm, threads }) => {
    const ort = await import(`${npm}${folder}ort.wasm.min.mjs`);
    ort.env.wasm.wasmPaths = {
      mjs: `${npm}${folder}ort-wasm-simd-threaded.mjs`,
      wasm: `${npm}${folder}ort-wasm-simd-threaded.wasm`,
    };
    ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
    ort.env.logLevel = "fatal"; // errors come as exceptions

    const load = async (bytes, data) => {
      const session = await ort.InferenceSession.create(bytes, {
        executionProviders: ["wasm"],
        graphOptimizationLevel: "all",
        externalData: data === null ? undefined : [{ path: data.name, data: data.bytes }],
      });
      return {
        inputs: session.inputMetadata.map(({ name, type, shape }) => ({
          name,
          dtype: type,
          shape: shape.map((size) => (typeof size === "number" && size >= 0 ? size : null)),
        })),
        outputs: [...session.outputNames],
        prepare: (arrays) =>
          Object.fromEntries(
            Object.entries(arrays).map(([name, { dtype, shape, data }]) => [name, new ort.Tensor(dtype, data, shape)]),
          ),
        discard: () => {},
        run: (feed) => session.run(feed),
        release: () => {},
        collect: (result) =>
          session.outputNames.map((name) => ({
            dtype: result[name].type,
            shape: [...result[name].dims],
            data: result[name].data,
          })),
        free: () => session.release(),
      };
    };
    const runtime = { name: `onnxruntime-web ${ort.env.versions.web} (WebAssembly)`, load };
    // What was asked for is not always what is there: it is known once the first model is loaded.
    Object.defineProperty(runtime, "threads", { get: () => ort.env.wasm.numThreads });
    return runtime;
  };
})();
