// The page's side of the widgets: plain JavaScript, read by the browser as it stands.
//
// `model` is the kernel's widget: its traits `state` and `sounds` are shown, and what is done on
// the page is sent as {do: NAME, ...}. Nothing here is kept that the kernel must know.

const RATE = 16000; // Hz of all sounds that come from the kernel

/** Make an element; properties that begin with "on" are listeners. */
function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const name = (node, text, label) => { // of a button whose meaning changes
  node.textContent = text;
  node.title = label;
  node.setAttribute("aria-label", label);
};
const button = (text, label, onclick) => {
  const node = h("button", { type: "button", onclick });
  name(node, text, label);
  return node;
};
const labelled = (text, input) => h("label", {}, text, input);
const status = () => h("p", { className: "umt-said", role: "status", "aria-live": "polite" });
const alarm = () => h("p", { className: "umt-error", role: "alert" });
const seconds = (time) => `${time.toFixed(1)} s`;
const writes = (node) => node.matches("input:not([type=checkbox], [type=radio], [type=range]), select");

/** About how long, in words. */
function about(time) {
  if (time < 90) return `${Math.max(1, Math.round(time))} s`;
  return time < 5400 ? `${Math.round(time / 60)} min` : `${(time / 3600).toFixed(1)} h`;
}

/** The page's one clock: browsers allow few of them, and only after something was clicked. */
function clock() {
  const page = globalThis;
  page.umtClock ??= new AudioContext({ sampleRate: RATE });
  page.umtClock.resume();
  return page.umtClock;
}

// --- player ---------------------------------------------------------------------------------------

const COLOURS = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];

function colour(level) {
  const place = (level / 255) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((c, i) => c + (COLOURS[low + 1][i] - c) * (place - low));
}

function drawSpectrogram(pen, sound, top, height, width) {
  const levels = new Uint8Array(sound.picture.buffer, sound.picture.byteOffset, sound.picture.byteLength);
  const image = new ImageData(sound.columns, sound.rows);
  levels.forEach((level, i) => image.data.set([...colour(level), 255], 4 * i));
  const small = h("canvas", { width: sound.columns, height: sound.rows });
  small.getContext("2d").putImageData(image, 0, 0);
  pen.drawImage(small, 0, top, width, height);
}

function drawWaveform(pen, samples, height, width) {
  pen.fillStyle = "#3b82c4"; // seen on white and on black
  for (let x = 0; x < width; x++) {
    let [low, high] = [0, 0];
    const end = Math.ceil(((x + 1) * samples.length) / width);
    for (let i = Math.floor((x * samples.length) / width); i < end; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    pen.fillRect(x, ((1 - high) * height) / 2, 1, Math.max(1, ((high - low) * height) / 2));
  }
}

/** Ask the kernel for a sound exactly as it is; resolves to its bytes. */
function exactly(model, number, why) {
  return new Promise((resolve) => {
    const receive = (message, buffers) => {
      if (message.wav !== number || message.why !== why) return;
      model.off("msg:custom", receive);
      resolve({ title: message.title, file: buffers[0] });
    };
    model.on("msg:custom", receive);
    model.send({ do: "wav", number, why });
  });
}

const bytes = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

async function decode(model, sound, number) {
  const decoder = new OfflineAudioContext(1, 1, RATE);
  try {
    return await decoder.decodeAudioData(bytes(sound.file));
  } catch {
    return decoder.decodeAudioData(bytes((await exactly(model, number, "decode")).file)); // no Opus
  }
}

/** Several sounds that play together, of which one is heard. */
function player(model, { blind = false, label = "sounds" } = {}) {
  let sounds = [], buffers = [], playing = [], gains = [], lanes = [];
  let chosen = 0, rest = 0, began = 0, stretch = null, turn = 0, frame = 0, showing = null;

  const lanesBox = h("div", { className: "umt-lanes" });
  const cursor = h("div", { className: "umt-cursor" });
  const loopBox = h("div", { className: "umt-loop", hidden: true });
  const slider = h("input", {
    type: "range", min: 0, step: 0.01, value: 0, "aria-label": "position",
    oninput: () => jump(Number(slider.value)),
  });
  const time = h("span", { className: "umt-time" });
  const playButton = button("▶", "play", () => toggle());
  const loop = h("input", { type: "checkbox", onchange: () => again() });
  const equal = h("input", { type: "checkbox", checked: true, onchange: () => setGains() });
  const keep = button("⤓", "download the chosen sound as WAV", download);
  const bar = h("div", { className: "umt-bar" },
    playButton, slider, time, labelled("loop ", loop),
    blind ? null : button("[", "loop from here", () => mark(0)),
    blind ? null : button("]", "loop to here", () => mark(1)),
    blind ? null : labelled("equally loud ", equal), blind ? null : keep);
  const root = h("div", {
    className: "umt-player", tabIndex: 0, role: "group", onkeydown: press,
    "aria-label": `${label}: space plays, arrows jump, digits choose a sound`,
  }, lanesBox, bar);

  const duration = () => buffers[0]?.duration ?? 0;
  const span = () => (loop.checked && stretch) || [0, duration()];

  function position() {
    if (!playing.length) return rest;
    const [from, to] = span(), now = Math.max(0, clock().currentTime - began);
    return loop.checked && now > to ? from + ((now - from) % (to - from)) : Math.min(now, duration());
  }

  function setGains() {
    gains.forEach((gain, i) => {
      const level = i === chosen ? (equal.checked ? sounds[i].gain : 1) : 0;
      gain.gain.setTargetAtTime(level, clock().currentTime, 0.004); // a switch that does not click
    });
  }

  function play() {
    if (!buffers.length) return;
    globalThis.umtStop?.(); // one player at a time
    const audio = clock(), start = audio.currentTime + 0.03, [from, to] = span();
    if (rest >= duration() - 0.02 || (loop.checked && rest >= to)) rest = from;
    began = start - rest;
    gains = buffers.map((_, i) => {
      const gain = audio.createGain();
      gain.gain.value = i === chosen ? (equal.checked ? sounds[i].gain : 1) : 0;
      gain.connect(audio.destination);
      return gain;
    });
    playing = buffers.map((buffer, i) => {
      const source = audio.createBufferSource();
      Object.assign(source, { buffer, loop: loop.checked, loopStart: from, loopEnd: to });
      source.connect(gains[i]);
      source.start(start, rest);
      return source;
    });
    playing[0].onended = () => stop(duration());
    globalThis.umtStop = stop;
    name(playButton, "❚❚", "stop");
    tick();
  }

  function stop(at = position()) {
    if (!playing.length) return;
    rest = at;
    playing[0].onended = null;
    for (const source of playing) source.stop();
    for (const gain of gains) gain.disconnect();
    playing = gains = [];
    globalThis.umtStop = null;
    cancelAnimationFrame(frame);
    name(playButton, "▶", "play");
    draw();
  }

  const toggle = () => (playing.length ? stop() : play());

  function again() { // with another loop
    const was = playing.length;
    stop();
    if (was) play();
    draw();
  }

  function jump(to) {
    const was = playing.length;
    stop();
    rest = Math.min(Math.max(to, 0), duration());
    if (was) play();
    draw();
  }

  function choose(number) {
    if (!sounds[number]) return;
    chosen = number;
    setGains();
    draw();
  }

  function mark(end) {
    const old = stretch ?? [0, duration()];
    const next = end ? [old[0], position()] : [position(), old[1]];
    if (next[1] - next[0] < 0.05) return;
    stretch = next;
    loop.checked = true;
    again();
  }

  function draw() {
    const now = position();
    cursor.style.left = `${(100 * now) / (duration() || 1)}%`;
    if (document.activeElement !== slider || playing.length) slider.value = now;
    slider.setAttribute("aria-valuetext", `${seconds(now)} of ${seconds(duration())}`);
    time.textContent = `${seconds(now)} / ${seconds(duration())}`;
    loopBox.hidden = !(loop.checked && stretch);
    if (stretch) {
      loopBox.style.left = `${(100 * stretch[0]) / duration()}%`;
      loopBox.style.width = `${(100 * (stretch[1] - stretch[0])) / duration()}%`;
    }
    lanes.forEach(({ lane, radio }, i) => {
      radio.checked = i === chosen;
      lane.classList.toggle("umt-chosen", i === chosen);
    });
    Object.assign(root.dataset, { chosen, playing: playing.length > 0, began: began.toFixed(6) });
  }

  function tick() {
    draw();
    frame = requestAnimationFrame(tick);
  }

  function press(event) {
    const inField = writes(event.target), digit = Number(event.key) - 1;
    const onSlider = event.target === slider;
    if (event.ctrlKey || event.metaKey || event.altKey || inField) return;
    const keys = {
      " ": event.target.matches("button, input") ? null : toggle,
      ArrowLeft: onSlider || event.target.matches("[type=radio]") ? null : () => jump(position() - 1),
      ArrowRight: onSlider || event.target.matches("[type=radio]") ? null : () => jump(position() + 1),
      l: () => { loop.checked = !loop.checked; again(); },
      "[": () => mark(0),
      "]": () => mark(1),
    };
    const act = keys[event.key] ?? (!blind && digit in sounds ? () => choose(digit) : null);
    if (!act) return;
    event.preventDefault();
    act();
  }

  function makeLane(sound, number, group) {
    const radio = h("input", { type: "radio", name: group, onchange: () => choose(number) });
    const picture = h("canvas", { width: 800, height: blind ? 40 : 130, "aria-hidden": "true" });
    const view = h("div", { className: "umt-view" }, picture);
    let from = null;
    const at = (event) => {
      const box = view.getBoundingClientRect();
      return (Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width) * duration();
    };
    view.onpointerdown = (event) => { from = at(event); view.setPointerCapture?.(event.pointerId); };
    view.onpointerup = (event) => {
      if (from === null) return;
      const to = at(event), drawn = [Math.min(from, to), Math.max(from, to)];
      from = null;
      choose(number);
      if (!blind && drawn[1] - drawn[0] > 0.02 * duration()) {
        stretch = drawn;
        loop.checked = true;
        jump(drawn[0]);
      } else {
        if (stretch && (to < stretch[0] || to > stretch[1])) { stretch = null; loop.checked = false; }
        jump(to);
      }
    };
    const words = sound.title.split(/(?<=_)/).flatMap((part) => [part, h("wbr")]);
    const title = h("label", { className: "umt-title" }, radio, h("span", {}, `${number + 1}. `, ...words));
    return { lane: h("div", { className: "umt-lane" }, title, view), radio, picture };
  }

  function paint(onsets, shares) { // on canvases that are new
    lanes.forEach(({ picture }, i) => {
      const pen = picture.getContext("2d"), { width, height } = picture;
      const waveform = 40;
      if (blind) return; // what is to be judged by ear is not seen
      drawWaveform(pen, buffers[i].getChannelData(0), waveform, width);
      if (sounds[i].picture) drawSpectrogram(pen, sounds[i], waveform, height - waveform, width * shares[i]);
      pen.fillStyle = "rgba(128, 200, 255, 0.8)";
      for (const onset of onsets) pen.fillRect((onset / duration()) * width, 0, 1, height);
    });
  }

  /** Take other sounds; what is chosen and the moment stay where the titles are the same. */
  function show(next, onsets = []) {
    const mine = ++turn;
    showing = (async () => {
      const decoded = await Promise.all(next.map((sound, i) => decode(model, sound, i)));
      if (mine !== turn) return; // something newer has come meanwhile
      const was = playing.length, same = !blind && sounds[chosen]?.title === next[chosen]?.title;
      stop();
      const length = Math.max(1, ...decoded.map((buffer) => buffer.length));
      buffers = decoded.map((buffer) => { // all of one length, so that they loop together
        const padded = new AudioBuffer({ length, sampleRate: RATE });
        padded.copyToChannel(buffer.getChannelData(0), 0);
        return padded;
      });
      sounds = next;
      if (!same) [chosen, rest, stretch] = [0, 0, null];
      rest = Math.min(rest, duration());
      const group = `umt-${Math.random()}`;
      lanes = sounds.map((sound, i) => makeLane(sound, i, group));
      lanesBox.replaceChildren(...lanes.map(({ lane }) => lane));
      lanesBox.append(h("div", { className: "umt-over" }, loopBox, cursor));
      slider.max = duration();
      root.hidden = !sounds.length;
      paint(onsets, decoded.map((buffer) => buffer.length / length));
      draw();
      root.dataset.sounds = sounds.length;
      if (was && same) play();
    })();
    return showing;
  }

  async function download() {
    const { title, file } = await exactly(model, chosen, "keep");
    const url = URL.createObjectURL(new Blob([bytes(file)], { type: "audio/wav" }));
    h("a", { href: url, download: `${title.replace(/[^\w .-]+/g, "-")}.wav` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function destroy() {
    turn++;
    stop();
    buffers = sounds = lanes = [];
  }

  root.hidden = true;
  return { root, show, stop, toggle, choose, destroy, chosen: () => chosen };
}

// --- recorder -------------------------------------------------------------------------------------

const WORKLET = `registerProcessor("umt-pieces", class extends AudioWorkletProcessor {
  constructor() { super(); this.piece = new Float32Array(8192); this.used = 0; }
  process([[channel]]) {
    if (channel) {
      if (this.used + channel.length > this.piece.length) {
        this.port.postMessage(this.piece.slice(0, this.used));
        this.used = 0;
      }
      this.piece.set(channel, this.used);
      this.used += channel.length;
    }
    return true;
  }
})`;

const REFUSED = {
  NotAllowedError: "The microphone was refused. Allow it by the sign beside the page's address (and in "
    + "the settings of the computer), then record again; or upload a file.",
  NotFoundError: "No microphone was found. Plug one in, then record again; or upload a file.",
  NotReadableError: "The microphone is busy: another program uses it. Close that; or upload a file.",
};

/** Buttons that send a recording or a file to the kernel, in pieces. */
function source(model) {
  let live = null;
  const meter = h("meter", { min: 0, max: 1, low: 0.02, high: 0.95, value: 0, "aria-label": "level" });
  const length = h("span", { className: "umt-time" });
  const record = button("● record", "record from the microphone", () => (live ? finish() : begin()));
  const file = h("input", { type: "file", accept: "audio/*,.flac,.ogg,.opus", onchange: upload });
  const trouble = alarm();
  const root = h("div", { className: "umt-source" },
    h("div", { className: "umt-bar" }, record, meter, length, labelled("or upload ", file)), trouble);

  async function begin() {
    trouble.textContent = "";
    if (!globalThis.isSecureContext || !navigator.mediaDevices) {
      trouble.textContent = "Browsers give the microphone to safe pages only, whose address begins with "
        + "https:// or is localhost. Upload a file instead.";
      return;
    }
    record.disabled = true;
    let stream = null;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
      globalThis.umtStop?.();
      const audio = new AudioContext(), url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      live = { stream, audio, samples: 0 };
      await audio.audioWorklet.addModule(url);
      URL.revokeObjectURL(url);
      const worklet = new AudioWorkletNode(audio, "umt-pieces", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      worklet.port.onmessage = ({ data }) => take(data);
      model.send({ do: "begin" });
      audio.createMediaStreamSource(stream).connect(worklet);
      await audio.resume();
      name(record, "■ stop", "stop recording");
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      live?.audio.close();
      live = null;
      trouble.textContent = REFUSED[error.name] ?? `The microphone does not work (${error.message}). Upload a file instead.`;
    }
    record.disabled = false;
  }

  function take(piece) {
    if (!live) return;
    const limit = model.get("state").limit;
    const pcm = Int16Array.from(piece, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))));
    model.send({ do: "piece" }, undefined, [pcm.buffer]);
    live.samples += piece.length;
    meter.value = piece.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const done = live.samples / live.audio.sampleRate;
    length.textContent = `${seconds(done)} of ${about(limit)}`;
    if (done >= limit) finish();
  }

  function finish() {
    if (!live) return;
    const { stream, audio } = live;
    live = null;
    stream.getTracks().forEach((track) => track.stop());
    model.send({ do: "recorded", rate: audio.sampleRate });
    audio.close();
    name(record, "● record", "record from the microphone");
    meter.value = 0;
  }

  async function upload() {
    const [chosen] = file.files;
    if (!chosen) return;
    model.send({ do: "begin" });
    for (let at = 0; at < chosen.size; at += 1 << 20) {
      model.send({ do: "piece" }, undefined, [await chosen.slice(at, at + (1 << 20)).arrayBuffer()]);
    }
    model.send({ do: "file", name: chosen.name });
    file.value = "";
  }

  return { root, destroy: finish };
}

// --- the widgets ----------------------------------------------------------------------------------

const widgets = {
  Player(model) {
    return { parts: [], label: "sounds" };
  },

  Recorder(model) {
    const { root, destroy } = source(model);
    return { parts: [root], destroy };
  },

  Translator(model) {
    const set = (values) => model.send({ do: "set", values });
    const { root: recorder, destroy } = source(model);
    const from = h("select", { onchange: () => set({ source: from.value }) });
    const blend = h("select", { onchange: () => set({ blend: blend.value }) });
    const temperature = h("input", {
      type: "range", min: 0.1, max: 1.5, step: 0.05,
      oninput: () => (temperatureText.textContent = temperature.value),
      onchange: () => set({ temperature: Number(temperature.value) }),
    });
    const temperatureText = h("output");
    const seed = h("input", { type: "number", min: 0, max: 2 ** 31, step: 1, onchange: () => set({ seed: Number(seed.value) }) });
    const domains = h("fieldset", { className: "umt-bar" }, h("legend", {}, "to"));
    const go = button("translate", "translate", () => model.send({ do: model.get("state").busy ? "stop" : "start" }));
    const bar = h("progress", { max: 1, value: 0, "aria-label": "done" }), left = h("span", { className: "umt-time" });
    const boxes = model.get("state").domains.map((name) => h("input", {
      type: "checkbox", value: name,
      onchange: () => set({ chosen: boxes.filter((box) => box.checked).map((box) => box.value) }),
    }));
    domains.append(...boxes.map((box) => h("label", {}, box, ` ${box.value}`)));
    const options = (list, names) => {
      if (list.length !== names.length || names.some((name, i) => list[i].value !== name)) {
        list.replaceChildren(...names.map((name) => h("option", { value: name }, name || "nothing")));
      }
    };
    const update = (state) => {
      options(from, state.sources);
      options(blend, ["", ...state.sources]);
      from.value = state.source;
      blend.value = state.blend;
      if (document.activeElement !== temperature) temperature.value = state.temperature;
      if (document.activeElement !== seed) seed.value = state.seed;
      temperatureText.textContent = temperature.value;
      for (const box of boxes) box.checked = state.chosen.includes(box.value);
      for (const input of [from, blend, temperature, seed, ...boxes]) input.disabled = state.busy;
      name(go, state.busy ? "stop" : "translate", state.busy ? "stop" : "translate");
      bar.hidden = !state.busy;
      bar.value = state.done;
      left.textContent = state.busy
        ? (state.left == null ? "" : `about ${about(state.left)} left`)
        : (state.expected == null ? "" : `will take about ${about(state.expected)} here`);
    };
    const parts = [
      h("div", { className: "umt-bar" }, labelled("translate ", from), labelled("blend into ", blend)),
      recorder, domains,
      h("div", { className: "umt-bar" }, labelled("temperature ", temperature), temperatureText, labelled("seed ", seed)),
      h("div", { className: "umt-bar" }, go, bar, left),
    ];
    return { parts, update, destroy, label: "input and translations" };
  },

  TrainingView(model) {
    const go = button("train", "train", () => model.send({ do: model.get("state").running ? "stop" : "start" }));
    const picture = h("div");
    const update = (state) => {
      const word = state.running ? "stop" : state.begun ? "go on" : "train";
      name(go, word, word);
      go.disabled = !state.can;
      go.hidden = state.done && !state.running;
      if (picture.innerHTML !== state.html) picture.innerHTML = state.html;
    };
    return { parts: [h("div", { className: "umt-bar" }, go), picture], update, label: "held-out excerpt, translated" };
  },

  ListeningTest(model, tools) {
    const question = h("p"), answers = h("div", { className: "umt-bar" });
    const bar = h("progress", { "aria-label": "answered" }), place = h("span", { className: "umt-time" });
    const act = (what) => () => { tools.player.stop(); model.send(what()); };
    const back = button("← back", "back", act(() => ({ do: "go", step: -1 })));
    const on = button("on →", "on", act(() => ({ do: "go", step: 1 })));
    const answer = (number) => act(() => ({ do: "answer", number }))();
    let shown = null;
    const update = (state) => {
      question.textContent = state.question;
      [bar.max, bar.value] = [state.total, state.answered];
      place.textContent = `${state.place + 1} of ${state.total}, ${state.answered} answered`;
      back.disabled = state.place === 0;
      on.disabled = state.place === state.total - 1;
      answers.replaceChildren(...state.answers.map((text, i) => {
        const made = button(text, text, () => answer(i + 1));
        made.setAttribute("aria-pressed", state.given === i + 1);
        return made;
      }));
      if (shown !== null && shown !== state.place) tools.root.focus();
      shown = state.place;
    };
    const press = (event) => {
      const state = model.get("state"), digit = Number(event.key), player = tools.player;
      const keys = { ArrowLeft: () => back.click(), ArrowRight: () => on.click(), p: player.toggle, s: () => player.choose(1 - player.chosen()) };
      if (state.lineup) keys.Enter = () => answer(player.chosen() + 1);
      if (digit >= 1 && digit <= state.answers.length) keys[event.key] = () => (state.lineup ? player.choose(digit - 1) : answer(digit));
      if (event.target.tagName === "BUTTON" && event.key === "Enter") return;
      if (event.key === " " && !event.target.matches("button, input")) keys[" "] = player.toggle;
      if (!keys[event.key]) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    };
    const parts = [h("div", { className: "umt-bar" }, bar, place), question];
    return { parts, after: [answers, h("div", { className: "umt-bar" }, back, on)], update, press, blind: true, label: "sounds to judge" };
  },
};

/** Show a widget; what it returns takes it away again. */
function render({ model, el }) {
  const tools = {};
  const widget = widgets[model.get("kind")](model, tools);
  const sounds = player(model, widget), said = status(), trouble = alarm();
  const lost = h("p", { className: "umt-error", role: "alert", hidden: true },
    "The kernel was restarted, or is gone. What is here can still be heard; to go on, run this cell again.");
  // Notebooks have keys of their own, which must not get what is typed here.
  const root = h("div", { className: "umt", tabIndex: -1, "data-kind": model.get("kind"), "data-lm-suppress-shortcuts": "true" },
    ...widget.parts, said, trouble, lost, sounds.root, ...(widget.after ?? []));
  Object.assign(tools, { root, player: sounds });
  if (widget.press) root.addEventListener("keydown", widget.press, true);
  root.addEventListener("keydown", (event) => event.stopPropagation());

  const update = () => {
    const state = model.get("state");
    said.textContent = state.said ?? "";
    trouble.textContent = state.error ?? "";
    widget.update?.(state);
  };
  const hear = () => sounds.show(model.get("sounds"), model.get("state").onsets);
  const lose = () => (lost.hidden = false);
  model.on("change:state", update);
  model.on("change:sounds", hear);
  model.on("comm_live_update", lose);
  update();
  hear();
  el.append(root);
  return () => {
    model.off("change:state", update);
    model.off("change:sounds", hear);
    model.off("comm_live_update", lose);
    widget.destroy?.();
    sounds.destroy();
  };
}

export default { render };
