// Plays a movie by Media Source Extensions: fetches segments of pictures and sound from where the viewer is on.
"use strict";

const AHEAD = 20; // seconds that are fetched before they are needed
const BEHIND = 60; // seconds that are kept after they were shown
const EDGE = 0.06; // seconds that a segment may lack at its ends: packets of sound do not end with pictures
const POLL = 100; // milliseconds between looks at what is needed
const RETRY = 1000; // milliseconds to wait after a failure, and so much more after each other one
const TELL = 1000; // milliseconds between looks at what there is to tell, while something is made

const video = document.querySelector("video");
const list = document.querySelector("select");
const once = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function show(notes, error = false) {
  const items = notes.map((text) => Object.assign(document.createElement("li"), { textContent: text }));
  if (error) items.forEach((item) => item.classList.add("error"));
  document.querySelector("#notes").replaceChildren(...items);
}

async function json(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return response.json();
}

// Feeds one SourceBuffer with the segments of one kind.
class Feeder {
  constructor(movie, kind, buffer) {
    Object.assign(this, { movie, kind, buffer, request: null, number: null, failures: 0, error: "" });
    this.path = `${movie.number}/${kind}`;
    video.addEventListener("seeking", () => {
      if (this.request && this.wanted() !== this.number) this.request.abort();
    });
  }

  has(since, until) {
    const ranges = this.buffer.buffered;
    for (let i = 0; i < ranges.length; i++) {
      if (ranges.start(i) <= since + EDGE && ranges.end(i) >= until - EDGE) return true;
    }
    return false;
  }

  // The first segment from the current time on that is not there; null if none is needed now.
  wanted() {
    const { seconds, segment_seconds: length } = this.movie.about;
    const last = Math.ceil(seconds / length) - 1;
    for (let n = Math.min(Math.floor((video.currentTime + 0.001) / length), last); n <= last; n++) {
      if (n * length > video.currentTime + AHEAD) return null;
      if (!this.has(n * length, Math.min((n + 1) * length, seconds))) return n;
    }
    return null;
  }

  get complete() {
    const { seconds } = this.movie.about;
    return this.has(video.currentTime, seconds);
  }

  async run() {
    while (this.movie.open) {
      this.number = this.wanted();
      if (this.number === null) {
        this.movie.endIfComplete();
        await sleep(POLL);
        continue;
      }
      try {
        await this.fetch(this.number);
        this.failures = 0;
        this.error = "";
        await this.movie.tell();
      } catch (error) {
        if (!this.movie.open) return;
        await this.reset();
        if (error.name === "AbortError") continue;
        if (error.name === "QuotaExceededError") await this.remove(0, video.currentTime - 2);
        else this.fail(error);
        await sleep(RETRY * Math.min(++this.failures, 10));
      }
    }
  }

  fail(error) {
    const gone = error instanceof TypeError; // which is what fetch throws if there is no answer
    this.error = gone ? "viddiff does not answer: it may have ended" : `${this.kind}: ${error.message}`;
    this.movie.show();
  }

  async fetch(number) {
    this.request = new AbortController();
    try {
      const response = await fetch(`${this.path}/${number}`, { signal: this.request.signal });
      if (!response.ok) throw new Error(await response.text());
      const reader = response.body.getReader();
      for (let part; !(part = await reader.read()).done; ) await this.append(part.value);
    } finally {
      this.request = null;
    }
    await this.remove(0, video.currentTime - BEHIND);
  }

  async append(bytes) {
    this.buffer.appendBuffer(bytes);
    await once(this.buffer, "updateend");
  }

  async remove(since, until) {
    if (until <= since || !this.buffer.buffered.length) return;
    this.buffer.remove(since, until);
    await once(this.buffer, "updateend");
  }

  // Forget the half of a segment that the buffer was given.
  async reset() {
    if (this.buffer.updating) await once(this.buffer, "updateend");
    if (this.movie.source.readyState === "open") this.buffer.abort();
  }
}

class Movie {
  constructor(number) {
    Object.assign(this, { number, open: true, source: new MediaSource(), feeders: [] });
  }

  async play(since) {
    this.about = await json(`${this.number}/start`);
    this.show();
    const opened = once(this.source, "sourceopen");
    video.src = URL.createObjectURL(this.source);
    await opened;
    URL.revokeObjectURL(video.src);
    this.source.duration = this.about.seconds;
    for (const kind of ["pictures", "sound"]) {
      if (!this.about[kind]) continue;
      if (!MediaSource.isTypeSupported(this.about[kind])) throw new Error(`this browser lacks ${this.about[kind]}`);
      this.feeders.push(new Feeder(this, kind, this.source.addSourceBuffer(this.about[kind])));
    }
    if (since) video.currentTime = Math.min(since, this.about.seconds);
    this.feeders.forEach((feeder) => feeder.run());
    this.watch();
    video.play().catch(() => {}); // browsers may want a click before there is sound
  }

  show() {
    const errors = new Set(this.feeders.map((feeder) => feeder.error).filter(Boolean));
    show([...this.about.notes, ...errors], errors.size > 0);
  }

  async tell() {
    this.about = await json(`${this.number}/about`);
    if (this.open) this.show();
  }

  // A segment may take long, and what is noted meanwhile says why.
  async watch() {
    while (this.open) {
      await sleep(TELL);
      if (this.open && this.feeders.some((feeder) => feeder.request)) await this.tell().catch(() => {});
    }
  }

  endIfComplete() {
    const idle = this.feeders.every((feeder) => !feeder.buffer.updating && feeder.complete && !feeder.request);
    if (idle && this.source.readyState === "open") this.source.endOfStream();
  }

  close() {
    this.open = false;
    this.feeders.forEach((feeder) => feeder.request?.abort());
  }
}

let movie = null;

async function start(number, since = 0) {
  movie?.close();
  movie = new Movie(number);
  document.title = list.options[number].text;
  try {
    await movie.play(since);
  } catch (error) {
    show([error.message], true);
  }
}

async function main() {
  if (!window.MediaSource) throw new Error("this browser cannot play it: it has no Media Source Extensions");
  const names = await json("movies");
  list.append(...names.map((name) => new Option(name)));
  list.closest("nav").hidden = names.length < 2;
  list.addEventListener("change", () => start(list.selectedIndex));
  const found = /^#t=(\d+(?:\.\d+)?)$/.exec(location.hash);
  await start(0, found ? Number(found[1]) : 0);
}

main().catch((error) => show([error.message], true));
