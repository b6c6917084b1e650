"use strict";
// Serves one job: loads artifacts into the runtimes of their targets, computes every case, times case 0, and sends
// outputs and times to the computer. A classic worker, because LiteRT.js loads its part by importScripts; and a worker
// at all, because a page that computes in its own thread cannot say that it lives.

const ARRAYS = {
  float32: Float32Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int64: BigInt64Array,
  float64: Float64Array,
};
const BASE = new URL(".", location.href).href;
const WARM_UP_MS = 1000;
const STEPS = 20; // of the clock that a timed batch is long at least, so that a step is at most 5 % of it
const TRIES = 10;
const PROGRESS_MS = 100;
const PAGE_BYTES = 65536;

class Refusal extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

// The memories of the runtimes, for their sizes. One that a browser does not give with the maximum that a runtime asks
// for, 4 GiB, is asked for with less: older iPhones refuse to reserve that much.
const memories = [];
const reduced = [];
const Memory = WebAssembly.Memory;
WebAssembly.Memory = function (descriptor) {
  const { initial, maximum: asked } = descriptor;
  const maxima = [asked, ...[16384, 8192, 4096].filter((pages) => pages < asked && pages >= initial)];
  for (const maximum of maxima) {
    try {
      const memory = new Memory(maximum === undefined ? descriptor : { ...descriptor, maximum });
      if (maximum !== asked) reduced.push(maximum);
      memories.push(memory);
      return memory;
    } catch (error) {
      if (!(error instanceof RangeError) || maximum === maxima.at(-1)) throw error;
    }
  }
};
WebAssembly.Memory.prototype = Memory.prototype;
for (const name of ["instantiate", "instantiateStreaming"]) {
  const original = WebAssembly[name];
  WebAssembly[name] = async (...parts) => {
    const result = await original.apply(WebAssembly, parts);
    for (const value of Object.values((result.instance ?? result).exports)) {
      if (value instanceof Memory && !memories.includes(value)) memories.push(value);
    }
    return result;
  };
}

function heapBytes() {
  return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

let lastProgress = -Infinity;
function progress(phase, done = 0, total = 0) {
  const now = performance.now();
  if (done !== 0 && done !== total && now - lastProgress < PROGRESS_MS) return;
  lastProgress = now;
  postMessage({ kind: "progress", phase, done, total });
}

/** Returns the smallest step that the clock makes, in microseconds. */
function clockStep() {
  const begin = performance.now();
  let [step, last, now] = [Infinity, begin, begin];
  for (let looks = 0; now - begin < 30 || looks < 3; ) {
    now = performance.now();
    if (now > last) {
      step = Math.min(step, now - last);
      last = now;
      looks += 1;
    }
  }
  return step * 1000;
}

class Artifact {
  constructor(entry, expected) {
    this.entry = entry;
    this.expected = expected;
  }

  async fetch(name) {
    const response = await fetch(BASE + name);
    if (!response.ok) throw new Error(`${name} did not come: status ${response.status}`);
    return new Uint8Array(await response.arrayBuffer());
  }

  async download() {
    const { entry } = this;
    this.modelBytes = await this.fetch(entry.model);
    this.inputBytes = await this.fetch(entry.inputs.file);
    this.dataBytes = entry.data === null ? null : await this.fetch(entry.data.file);
  }

  /** Returns a case of one tensor of the inputs' file, where the cases of each tensor follow each other. */
  part(tensor, index) {
    const begin = tensor.offset + index * tensor.bytes;
    return this.inputBytes.slice(begin, begin + tensor.bytes);
  }

  /** Loads the model, with the weights of a case in its data file or that as it is; returns the milliseconds. */
  async load(runtime, index = null) {
    const begin = performance.now();
    this.model?.free();
    this.model = null;
    const { data } = this.entry;
    if (data !== null && index !== null) {
      for (const tensor of data.tensors) this.dataBytes.set(this.part(tensor, index), tensor.place);
    }
    this.model = await runtime.load(this.modelBytes, data === null ? null : { name: data.name, bytes: this.dataBytes });
    return performance.now() - begin;
  }

  feed(index) {
    const arrays = {};
    for (const tensor of this.entry.inputs.tensors) {
      const bytes = this.part(tensor, index);
      arrays[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data: new ARRAYS[tensor.dtype](bytes.buffer) };
    }
    return this.model.prepare(arrays);
  }

  checkInputs() {
    const given = this.entry.inputs.tensors;
    const { inputs } = this.model;
    if (inputs.length !== given.length) {
      const names = given.map((tensor) => tensor.name).join(", ");
      throw new Refusal("signature", `the model takes ${inputs.length} inputs, the request gives ${names}`);
    }
    for (const tensor of given) {
      const known = inputs.find((input) => input.name === tensor.name);
      if (known === undefined) {
        const names = inputs.map((input) => input.name).join(", ");
        throw new Refusal("signature", `the model has no input '${tensor.name}'; its inputs are ${names}`);
      }
      const fits =
        known.shape.length === tensor.shape.length &&
        known.shape.every((size, axis) => size === null || size === tensor.shape[axis]);
      if (known.dtype !== tensor.dtype || !fits) {
        const [is, was] = [known, tensor].map(({ dtype, shape }) => `${dtype} [${shape.map((size) => size ?? "any")}]`);
        throw new Refusal("signature", `input '${tensor.name}' is ${is} in the model, ${was} in the request`);
      }
    }
  }

  /** Copies the results of one case into the outputs, which have the cases of each output one after the other. */
  keep(results, outputs, index) {
    const names = this.model.outputs;
    if ([...names].sort().join() !== this.expected.map((entry) => entry.name).sort().join()) {
      throw new Refusal("signature", `the model's outputs are ${names.join(", ")}`);
    }
    for (const entry of this.expected) {
      const { dtype, shape, data } = results[names.indexOf(entry.name)];
      if (dtype !== entry.dtype || shape.join() !== entry.shape.join()) {
        const came = `${dtype} [${shape}]`;
        throw new Refusal("signature", `output '${entry.name}' came as ${came}, not as ${entry.dtype} [${entry.shape}]`);
      }
      outputs.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), entry.offset + index * entry.bytes);
    }
  }
}

/** Makes so many calls; returns the milliseconds that they took. What they gave is released after that. */
async function timeCalls({ model, feed }, count) {
  const results = [];
  const begin = performance.now();
  for (let call = 0; call < count; call += 1) results.push(await model.run(feed));
  const spent = performance.now() - begin;
  for (const result of results) model.release(result);
  return spent;
}

/** Returns how many calls even the fastest of a few batches needs to be long enough for the clock. */
async function batchFor(calls, step) {
  const enough = (STEPS * step) / 1000;
  let batch = 1;
  for (const call of calls) {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const spent = await timeCalls(call, batch);
      if (spent >= enough) continue;
      batch = spent > 0 ? Math.min(2 * batch, Math.ceil((batch * enough) / spent)) : 2 * batch;
      tries = -1;
    }
  }
  return batch;
}

/** Runs each artifact's model in turn; returns microseconds of all measured samples, each the mean of a batch. */
async function timeInTurn(calls, job, step, phase) {
  const begin = performance.now();
  let rounds = 0;
  // By time, not by a count: the browser compiles what runs often once more, while it runs.
  for (; rounds < job.warmup || performance.now() - begin < WARM_UP_MS; rounds += 1) {
    for (const call of calls) await timeCalls(call, 1);
    progress("warming up", performance.now() - begin, WARM_UP_MS);
  }
  const batch = await batchFor(calls, step);
  const samples = calls.map(() => []);
  for (let round = 0; round < job.iterations; round += 1) {
    for (const [at, call] of calls.entries()) samples[at].push(((await timeCalls(call, batch)) * 1000) / batch);
    progress(phase, round + 1, job.iterations);
  }
  return { samples, batch, rounds };
}

/** Times a program that does next to nothing: what a call of the runtime costs beside the graph. */
async function timeACall(runtime, entry, artifact, job, step) {
  if (job.iterations === 0) return { samples: [], reason: null };
  if (entry.trivial === null) return { samples: [], reason: "there is no program by which a call could be timed" };
  let model = null;
  try {
    model = await runtime.load(await artifact.fetch(entry.trivial), null);
    const name = model.inputs[0].name;
    const feed = model.prepare({ [name]: { dtype: "int32", shape: [1], data: new Int32Array(1) } });
    const { samples } = await timeInTurn([{ model, feed }], job, step, "timing an empty call");
    return { samples: samples[0], reason: null };
  } catch (error) {
    return { samples: [], reason: `the program by which a call is timed does not run here: ${wordsOf(error)}` };
  } finally {
    model?.free();
  }
}

async function begin(entry, threads) {
  importScripts(BASE + entry.runtime);
  return self.startRuntime({ npm: `${BASE}npm/`, threads, version: entry.version });
}

function conditions(job, runtime, step, timed) {
  const words = { isolated: self.crossOriginIsolated ? "yes" : "no" };
  words.clock_step_us = step.toPrecision(3);
  if (runtime.threads !== job.threads) words.threads = `${runtime.threads} of ${job.threads} asked for`;
  if (reduced.length > 0) words.memory_limit_mib = String((Math.min(...reduced) * PAGE_BYTES) / 2 ** 20);
  if (timed !== null) {
    words.warm_up = `${timed.rounds} calls, until ${WARM_UP_MS / 1000} s had passed`;
    words.timed = timed.batch === 1 ? "single calls" : `means of ${timed.batch} calls, because of the clock's step`;
  }
  return words;
}

async function execute(job) {
  const [entry] = job.artifacts;
  const artifact = new Artifact(entry, job.outputs);
  progress("loading files");
  await artifact.download();
  progress("starting the runtime");
  const runtime = await begin(entry, job.threads);
  const loadMs = await artifact.load(runtime);
  artifact.checkInputs();
  const outputs = new Uint8Array(job.output_bytes);
  const swapMs = [];
  let firstUs = 0;
  for (let index = 0; index < job.cases; index += 1) {
    if (entry.data !== null && entry.data.tensors.length > 0) swapMs.push(await artifact.load(runtime, index));
    const feed = artifact.feed(index);
    const begin = performance.now();
    const result = await artifact.model.run(feed);
    if (index === 0) firstUs = (performance.now() - begin) * 1000;
    artifact.keep(artifact.model.collect(result), outputs, index);
    artifact.model.discard(feed);
    progress("computing the cases", index + 1, job.cases);
  }
  const heap = memories.length > 0 ? heapBytes() : null;
  if (swapMs.length > 0) {
    artifact.dataBytes = await artifact.fetch(entry.data.file);
    await artifact.load(runtime);
  }
  const step = clockStep();
  let timed = null;
  if (job.iterations > 0) {
    const calls = [{ model: artifact.model, feed: artifact.feed(0) }];
    timed = await timeInTurn(calls, job, step, "timing calls");
  }
  const call = await timeACall(runtime, entry, artifact, job, step);
  return {
    response: {
      executed_on: runtime.name,
      load_ms: loadMs,
      first_us: firstUs,
      samples_us: timed === null ? [] : timed.samples[0],
      calls_per_sample: timed === null ? 1 : timed.batch,
      warmup: timed === null ? 0 : timed.rounds,
      call_samples_us: call.samples,
      call_reason: call.reason,
      swap_ms: swapMs,
      wasm_heap_bytes: heap,
      threads: runtime.threads,
      conditions: conditions(job, runtime, step, timed),
    },
    outputs,
  };
}

async function compare(job) {
  const runtimes = new Map();
  const calls = [];
  for (const entry of job.artifacts) {
    const artifact = new Artifact(entry, []);
    progress("loading files");
    await artifact.download();
    if (!runtimes.has(entry.runtime)) runtimes.set(entry.runtime, await begin(entry, job.threads));
    await artifact.load(runtimes.get(entry.runtime));
    artifact.checkInputs();
    calls.push({ model: artifact.model, feed: artifact.feed(0) });
  }
  const { samples } = await timeInTurn(calls, job, clockStep(), "timing both in turn");
  const [first, second] = job.artifacts.map((entry) => runtimes.get(entry.runtime));
  return {
    response: {
      executed_on: first.name,
      rival_executed_on: second.name,
      samples_us: samples[0],
      rival_samples_us: samples[1],
      threads: first.threads,
      rival_threads: second.threads,
    },
    outputs: null,
  };
}

/** Returns what an error says; the stack of some browsers lacks the message, the message of others the place. */
function wordsOf(error) {
  const message = String(error?.message ?? error);
  return `${error?.name ?? "Error"}: ${message}`.replaceAll(BASE, "").slice(0, 2000);
}

/** Returns an error for the computer; where the page is served is a secret, and no part of it. */
function refusalOf(error) {
  const message = wordsOf(error);
  const isMemory = /out of memory|bad_alloc|allocat|oom\b|memory\.grow/i.test(message);
  const kind = error instanceof Refusal ? error.kind : isMemory ? "memory" : "runtime";
  const stack = String(error?.stack ?? "").replaceAll(BASE, "");
  const lines = stack.startsWith(message) ? stack.slice(message.length) : stack;
  return { status: "error", kind, message, stack: lines.slice(0, 4000) };
}

async function send(visit, name, body) {
  const response = await fetch(BASE + name, { method: "POST", headers: { "Cocorr-Visit": visit }, body });
  if (!response.ok) throw new Error(`the computer did not take ${name}: status ${response.status}`);
}

async function serve({ job, visit }) {
  let answer;
  try {
    const { response, outputs } = await (job.artifacts.length > 1 ? compare : execute)(job);
    progress("sending the results");
    if (outputs !== null) await send(visit, `job/${job.number}/outputs`, outputs);
    answer = { status: "ok", ...response };
  } catch (error) {
    answer = refusalOf(error);
  }
  await send(visit, `job/${job.number}/response`, JSON.stringify({ protocol: job.protocol, number: job.number, ...answer }));
  postMessage({ kind: "done", failed: answer.status === "error" ? answer.message : null });
}

self.onmessage = (event) => {
  serve(event.data).catch((error) => postMessage({ kind: "lost", message: wordsOf(error) }));
};
