"use strict";
// How the worker of a page loads a TFLite model: with LiteRT.js, as plain WebAssembly on one thread.

(() => {
  const folder = "@litertjs/core/";

  /** Starts LiteRT.js from the files below `npm`: the build with relaxed SIMD, or `compat` where there is none. */
  self.startRuntime = async ({ npm, version }) => {
    const litert = await import(`${npm}${folder}dist/index.js`);
    const wasm = `${npm}${folder}wasm/`;
    const relaxed = await litert.supportsFeature("relaxedSimd");
    const script = relaxed ? "litert_wasm_internal.js" : "litert_wasm_compat_internal.js";
    // What its own loader would take from the page's script element, and a worker has none.
    self.Module = { locateFile: (name) => wasm + name, mainScriptUrlOrBlob: wasm + script };
    await litert.loadLiteRt(wasm + script);
    const { Tensor } = litert;

    const load = async (bytes) => {
      const compiled = await litert.loadAndCompile(bytes, { accelerator: "wasm" });
      const keys = Object.keys(compiled.signatures);
      if (keys.length !== 1) throw new Error(`the model has ${keys.length} signatures, exactly one is expected`);
      const signature = compiled.signatures[keys[0]];
      const inputs = signature.getInputDetails();
      const outputs = signature.getOutputDetails();
      return {
        inputs: inputs.map(({ name, dtype, shape }) => ({
          name,
          dtype,
          shape: Array.from(shape, (size) => (size >= 0 ? size : null)),
        })),
        outputs: outputs.map(({ name }) => name),
        prepare: (arrays) => inputs.map(({ name }) => new Tensor(arrays[name].data, arrays[name].shape)),
        discard: (feed) => feed.forEach((tensor) => tensor.delete()),
        run: (feed) => signature.run(feed),
        release: (result) => result.forEach((tensor) => tensor.delete()),
        collect: (result) =>
          result.map((tensor) => {
            const data = tensor.toTypedArray();
            const { dtype, layout } = tensor.type;
            tensor.delete();
            return { dtype, shape: [...layout.dimensions], data };
          }),
        free: () => compiled.delete(),
      };
    };
    const build = relaxed ? "relaxed SIMD" : "SIMD";
    return { name: `LiteRT.js ${version} (WebAssembly, ${build})`, threads: 1, load };
  };
})();
