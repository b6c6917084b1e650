"use strict";
// What a person sees, and the page's word to the computer: who it is, that it lives, and what it is to do next.

const BASE = new URL(".", location.href).href;
const BEAT_MS = 500;
const AGAIN_MS = 3000;

const $ = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let visit = "";
let worker = null;
let isRunning = false;
let current = { phase: "waiting for Run", done: 0, total: 0 };
let wakeLock = null;
let verdict = null; // the last one, which stays when runs without one follow

function say(words, kind = "") {
  $("state").textContent = words;
  $("state").dataset.verdict = kind;
}

function show(facts) {
  $("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => {
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      description.textContent = value;
      return [term, description];
    }),
  );
}

function post(name, body, more = {}) {
  const headers = { "Cocorr-Visit": visit };
  return fetch(BASE + name, { method: "POST", headers, body: JSON.stringify(body), ...more });
}

/** Returns what this browser tells of itself; what it keeps to itself is left out. */
async function about() {
  const { userAgentData } = navigator;
  let told = {};
  try {
    told = (await userAgentData?.getHighEntropyValues(["model", "platformVersion", "architecture"])) ?? {};
  } catch {
    // It may refuse; the user agent's string says enough.
  }
  return {
    agent: navigator.userAgent,
    model: told.model ?? "",
    platform: told.platform ?? userAgentData?.platform ?? "",
    platform_version: told.platformVersion ?? "",
    architecture: told.architecture ?? "",
    cores: navigator.hardwareConcurrency ?? 0,
  };
}

/** Says hello until the computer has time for this device. */
async function arrive() {
  const told = await about();
  for (;;) {
    const response = await post("hello", told);
    if (response.ok) return (await response.json()).visit;
    if (response.status !== 409) throw new Error(`status ${response.status}`);
    say("Another device is at work. This page goes on by itself when that one is done.");
    await pause(AGAIN_MS);
  }
}

/** Tells the computer twice a second that this page lives, and how far it is. */
async function beat() {
  for (;;) {
    await pause(BEAT_MS);
    if (visit === "") return;
    const visible = document.visibilityState === "visible";
    await post("beat", { ...current, visible }).catch(() => {}); // the next word to the computer tells of a loss
  }
}

async function keepAwake() {
  try {
    wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    // Only pages over https may; a person is asked to keep the screen on.
  }
}

function showJob(job) {
  show([
    ["Model", job.what],
    ["Runtime", job.runtime],
    ["To do", job.todo],
  ]);
}

function tellVerdict(event) {
  verdict = event;
  say(event.words, event.verdict);
  show(event.facts);
}

/** Waits for a press of the button. */
function pressed() {
  return new Promise((resolve) => {
    $("run").hidden = false;
    $("run").focus();
    $("run").onclick = () => {
      $("run").hidden = true;
      resolve();
    };
  });
}

/** Has a job done in a new worker; nothing of one job is left for the next. */
function work(job) {
  return new Promise((resolve, reject) => {
    worker = new Worker(`${BASE}worker.js`);
    worker.onmessage = ({ data }) => {
      if (data.kind === "progress") {
        current = { phase: data.phase, done: data.done, total: data.total };
        say(`Running: ${data.phase}.`);
        $("progress").value = data.total > 0 ? data.done / data.total : 0;
      } else if (data.kind === "done") {
        resolve(data.failed);
      } else {
        reject(new Error(data.message));
      }
    };
    worker.onerror = (event) => {
      const message = event.message ?? "the worker could not be started";
      const where = event.filename ? ` (${event.filename.split("/").pop()}:${event.lineno})` : "";
      const answer = { protocol: job.protocol, number: job.number, status: "error", kind: "runtime" };
      post("response", { ...answer, message: message + where, stack: "" }).then(() => resolve(message), reject);
    };
    worker.postMessage({ job, base: BASE, visit });
  }).finally(() => {
    worker.terminate();
    worker = null;
  });
}

async function run(job) {
  showJob(job);
  if (!isRunning && !job.starts_itself) {
    say("Ready.");
    $("advice").hidden = false;
    await pressed();
  }
  isRunning = true;
  $("advice").hidden = false;
  await keepAwake();
  current = { phase: "starting", done: 0, total: 0 };
  await post("started", { number: job.number });
  $("progress").hidden = false;
  const failed = await work(job);
  current = { phase: "done", done: 0, total: 0 };
  $("progress").hidden = true;
  say(failed === null ? "Done here. The computer compares the results." : `It did not run: ${failed}`);
}

function end(event) {
  visit = "";
  wakeLock?.release();
  $("advice").hidden = true;
  $("run").hidden = true;
  if (verdict === null) {
    say(event.words);
  } else {
    tellVerdict(verdict);
    $("what").textContent = "The computer has the results. You can close this page.";
  }
}

async function follow() {
  visit = await arrive();
  say("Connected.");
  beat();
  for (let after = 0; ; ) {
    const response = await post("next", { after });
    if (response.status === 204) continue;
    if (!response.ok) throw new Error(`status ${response.status}`);
    const event = await response.json();
    after += 1;
    if (event.kind === "job") await run(event.job);
    if (event.kind === "verdict") tellVerdict(event);
    if (event.kind === "end") return end(event);
  }
}

addEventListener("pagehide", () => {
  if (visit !== "") post("bye", {}, { keepalive: true }).catch(() => {});
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && isRunning) keepAwake();
});
follow().catch((error) => {
  visit = "";
  $("run").hidden = true;
  $("progress").hidden = true;
  if (verdict === null) say(`The computer no longer answers (${error.message}). Its command has ended.`);
});
