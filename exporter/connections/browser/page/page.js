"use strict";
// What a person sees, and the page's word to the computer: who it is, that it lives, and what it is to do next.

const BASE = new URL(".", location.href).href;
const BEAT_MS = 500;
const AGAIN_MS = 3000;
const TRIES = 6;

const $ = (id) => document.getElementById(id);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let visit = "";
let isRunning = false;
let current = { phase: "waiting for Run", done: 0, total: 0 };
let wakeLock = null;
let verdict = null; // the last one, which stays when runs without one follow
let job = new AbortController(); // of the moment; aborted where the computer no longer waits for it

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
  for (const mine = visit; ; ) {
    await pause(BEAT_MS);
    if (visit !== mine) return;
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

/** Waits for a press of the button, or the end of the job. */
function pressed(ended) {
  return new Promise((resolve) => {
    const done = () => {
      $("run").hidden = true;
      resolve();
    };
    $("run").hidden = false;
    $("run").focus();
    $("run").onclick = done;
    ended.addEventListener("abort", done);
  });
}

/** Has a job done in a new worker, which ends with it: nothing of one job is left for the next. */
function work(told, ended) {
  let worker = null;
  return new Promise((resolve, reject) => {
    ended.addEventListener("abort", resolve);
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
      const message = (event.message ?? "the worker could not be started").replaceAll(BASE, "");
      const where = event.filename ? ` (${event.filename.split("/").pop()}:${event.lineno})` : "";
      const answer = { protocol: told.protocol, number: told.number, status: "error", kind: "runtime" };
      post(`job/${told.number}/response`, { ...answer, message: message + where, stack: "" }).then(() => resolve(message), reject);
    };
    worker.postMessage({ job: told, visit });
  }).finally(() => worker?.terminate());
}

/** Does a job, once a person has pressed Run; `ended` is the signal that the computer no longer waits for it. */
async function run(told, ended) {
  showJob(told);
  $("advice").hidden = false;
  if (!isRunning && !told.starts_itself) {
    say("Ready.");
    await pressed(ended);
    if (ended.aborted) return;
  }
  isRunning = true;
  await keepAwake();
  current = { phase: "starting", done: 0, total: 0 };
  await post("started", { number: told.number });
  if (ended.aborted) return;
  $("progress").hidden = false;
  const failed = await work(told, ended);
  if (ended.aborted) return;
  current = { phase: "done", done: 0, total: 0 };
  $("progress").hidden = true;
  if (failed === null) say("Done here. The computer compares the results.");
  else say(`It did not run: ${failed}`, "fail");
}

function leave() {
  if (visit !== "") post("bye", {}, { keepalive: true }).catch(() => {});
}

function end(words) {
  leave(); // the computer waits a moment for the word that this one has come
  visit = "";
  job.abort();
  wakeLock?.release();
  for (const id of ["advice", "run", "progress"]) $(id).hidden = true;
  if (verdict !== null) tellVerdict(verdict);
  // What came of it is what a person looks for, and stays.
  if ($("state").dataset.verdict === "") say(words);
  else $("what").textContent = words;
}

/** Asks for what comes after so many events; a phone's network may be away for a moment. */
async function next(after) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await post("next", { after });
    } catch (error) {
      if (tries === TRIES) throw error;
      await pause(BEAT_MS);
    }
  }
}

/** Does what the computer says until that says that it is over; false where another device took this one's place. */
async function follow() {
  visit = await arrive();
  say("Connected.");
  beat();
  for (let after = 0; ; ) {
    const response = await next(after);
    if (response.status === 204) continue;
    job.abort(); // whatever comes now, that before it is over
    if (response.status === 410 && !isRunning) return false;
    if (!response.ok) throw new Error(`status ${response.status}`);
    const event = await response.json();
    after += 1;
    $("progress").hidden = true;
    if (event.kind === "job") {
      job = new AbortController();
      run(event.job, job.signal).catch(lost);
    } else if (event.kind === "verdict") {
      tellVerdict(event);
    } else {
      end(event.words);
      return true;
    }
  }
}

function lost(error) {
  end(`The computer no longer answers (${error.message}). Its command has ended.`);
}

async function stay() {
  while (!(await follow()));
}

addEventListener("pagehide", leave);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && isRunning) keepAwake();
});
stay().catch(lost);
