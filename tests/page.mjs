// What the runtimes' loaders look for in a browser's page, for node: scripts that load, and fetch of files beside the module.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import vm from "node:vm";

const overNetwork = globalThis.fetch;
globalThis.fetch = async (url, options) =>
  String(url).startsWith("file:") ? new Response(readFileSync(new URL(url))) : overNetwork(url, options);

class Script {
  addEventListener(name, listener) {
    this[name] = listener;
  }
}
globalThis.self = globalThis;
globalThis.require = createRequire(import.meta.url);
globalThis.document = {
  createElement: () => new Script(),
  body: {
    appendChild(script) {
      const path = fileURLToPath(script.src);
      globalThis.__dirname = dirname(path);
      vm.runInThisContext(readFileSync(path, "utf8"), { filename: path });
      script.load();
    },
  },
};
