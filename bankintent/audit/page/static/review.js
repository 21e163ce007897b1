// One row at a time. Everything that comes from the data is set as text, never as HTML. A decision counts once the
// server has written it: only then does the page go on.
const at = (id) => document.getElementById(id);
const MOST_MATCHES = 8;

let data = { rows: [], intents: [], decisions: {} };
let current = 0;
let busy = false;
const past = [];

const decidedOf = (row) => data.decisions[row.id] || { decision: "", note: "" };
const isOpen = (row) => ["", "skip"].includes(decidedOf(row).decision);
const percent = (share) => `model: ${Math.round(100 * share)} %`;

const WORDS = { keep: "Kept", suggested: "Suggestion taken", drop: "Dropped", skip: "Skipped for now" };
const KINDS = {
  label_error: "the model answers otherwise",
  near_duplicate: "nearly the same sentence has another label",
  "label_error+near_duplicate": "the model answers otherwise, and so does nearly the same sentence",
};

function describe(decision) {
  if (!decision) return "";
  return WORDS[decision] || `New label: ${decision.replace(/^intent:/, "")}`;
}

// A name with places to break after its joints, so that a long one stays readable on a phone.
function breakable(name) {
  const parts = name.split(/(?<=[_\-./])/);
  return parts.flatMap((part, number) => (number ? [document.createElement("wbr"), part] : [part]));
}

function say(problem) {
  at("problem").textContent = problem;
  at("problem").hidden = !problem;
}

function showProgress() {
  const total = data.rows.length;
  const done = data.rows.filter((row) => !isOpen(row)).length;
  const skipped = data.rows.filter((row) => decidedOf(row).decision === "skip").length;
  at("count").textContent = `${done} of ${total} decided` + (skipped ? `, ${skipped} skipped` : "");
  at("progress").max = Math.max(total, 1);
  at("progress").value = done;
}

function showRow() {
  const row = data.rows[current];
  at("row").hidden = !row;
  at("done").hidden = Boolean(row);
  closeChooser();
  showProgress();
  if (!row) {
    showEnd();
    return;
  }

  at("place").textContent = `Row ${current + 1} of ${data.rows.length} (${row.id}, ${row.split})`;
  at("kind").textContent = KINDS[row.kind] || "";
  at("text").textContent = row.text;
  at("given").replaceChildren(...breakable(row.given));
  at("given-share").textContent = percent(row.given_confidence);
  at("suggested").replaceChildren(...breakable(row.suggested));
  at("suggested-share").textContent = percent(row.confidence);
  at("note").value = decidedOf(row).note;
  at("neighbours").replaceChildren(...row.neighbours.map((near) => neighbour(row, near)));
  showDecision(row);
  window.scrollTo(0, 0);
}

function showDecision(row) {
  const decision = decidedOf(row).decision;
  at("decided").textContent = describe(decision);
  at("decided").hidden = !decision;
  for (const button of document.querySelectorAll(".actions button")) {
    const own = button.dataset.do;
    const isOther = own === "other" && decision && !WORDS[decision];
    button.classList.toggle("chosen", own === decision || Boolean(isOther));
  }
  document.querySelector('[data-do="undo"]').disabled = past.length === 0;
}

function neighbour(row, near) {
  const item = document.createElement("li");
  const label = document.createElement("span");
  label.className = "intent";
  if (near.label === row.given) label.classList.add("is-given");
  if (near.label === row.suggested) label.classList.add("is-suggested");
  label.replaceChildren(...breakable(near.label));
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = ` ${near.cosine.toFixed(2)}`;
  const text = document.createElement("div");
  text.textContent = near.text;
  item.append(text, label, share);
  return item;
}

function showEnd() {
  const open = data.rows.filter(isOpen).length;
  at("done-title").textContent = open ? `${open} rows are open` : "Every row is decided";
  if (!data.rows.length) at("done-title").textContent = "Nothing to review";
  at("done-text").textContent = open
    ? "They were skipped; the patch leaves them as they are."
    : "All decisions are in review.csv.";
  document.querySelector('[data-do="first"]').hidden = !data.rows.length;
}

async function send(row, decision, note) {
  busy = true;
  try {
    const response = await fetch("decide", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ id: row.id, decision, note }),
    });
    const answer = await response.json();
    if (!response.ok) {
      say(`Not written: ${answer.error}`);
      return false;
    }
    data.decisions = answer.decisions;
    say("");
    return true;
  } catch {
    say("Not written: the server cannot be reached. Is it still running? Your decision is not lost: decide again.");
    return false;
  } finally {
    busy = false;
  }
}

async function decide(decision) {
  const row = data.rows[current];
  if (!row || busy) return;
  const before = decidedOf(row);
  if (!(await send(row, decision, at("note").value.trim()))) return;
  past.push({ id: row.id, before });
  goToNext(current + 1);
}

function goToNext(from) {
  // A skipped row is passed over: "Next undecided" comes back to it.
  const fresh = (row) => decidedOf(row).decision === "";
  const after = data.rows.findIndex((row, place) => place >= from && fresh(row));
  current = after >= 0 ? after : data.rows.findIndex(fresh);
  if (current < 0) current = data.rows.length;
  showRow();
}

async function undo() {
  if (busy || !past.length) return;
  const last = past[past.length - 1];
  const place = data.rows.findIndex((row) => row.id === last.id);
  if (!(await send(data.rows[place], last.before.decision, last.before.note))) return;
  past.pop();
  current = place;
  showRow();
}

async function keepNote() {
  const row = data.rows[current];
  const note = at("note").value.trim();
  if (row && note !== decidedOf(row).note) await send(row, decidedOf(row).decision, note);
}

// The other intent: a list that narrows while its name is typed.

let matches = [];
let marked = 0;

function openChooser() {
  at("chooser").hidden = false;
  at("intent").value = "";
  showMatches();
  at("intent").focus();
}

function closeChooser() {
  at("chooser").hidden = true;
}

function words(text) {
  return text.toLowerCase().replace(/[_\-\s]+/g, " ").trim();
}

function showMatches() {
  const parts = words(at("intent").value).split(" ");
  const fits = (name) => parts.every((part) => words(name).includes(part));
  const start = (name) => (words(name).startsWith(parts.join(" ")) ? 0 : 1);
  const fitting = data.intents.filter(fits).sort((a, b) => start(a) - start(b));
  matches = fitting.slice(0, MOST_MATCHES);
  marked = 0;
  at("matches").replaceChildren(...matches.map(match));
  mark(0);
}

function match(name, place) {
  const item = document.createElement("li");
  item.id = `match-${place}`;
  item.setAttribute("role", "option");
  item.replaceChildren(...breakable(name));
  // Before the input loses the focus.
  item.addEventListener("mousedown", (event) => event.preventDefault());
  item.addEventListener("click", () => choose(place));
  return item;
}

function mark(place) {
  if (!matches.length) return;
  marked = (place + matches.length) % matches.length;
  [...at("matches").children].forEach((item, number) => {
    item.setAttribute("aria-selected", String(number === marked));
  });
  at("intent").setAttribute("aria-activedescendant", `match-${marked}`);
  at("matches").children[marked].scrollIntoView({ block: "nearest" });
}

function choose(place) {
  const name = matches[place];
  if (name === undefined) return;
  const isWord = Object.keys(WORDS).includes(name.toLowerCase()) || name.startsWith("intent:");
  decide(isWord ? `intent:${name}` : name);
}

at("intent").addEventListener("input", showMatches);
at("intent").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  if (event.key in steps) {
    event.preventDefault();
    mark(marked + steps[event.key]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    choose(marked);
  } else if (event.key === "Escape") {
    closeChooser();
    at("row").querySelector('[data-do="other"]').focus();
  }
});

at("note").addEventListener("change", keepNote);
at("note").addEventListener("keydown", (event) => {
  if (["Enter", "Escape"].includes(event.key)) event.target.blur();
});

// Buttons and keys do the same.

const ACTIONS = {
  keep: () => decide("keep"),
  suggested: () => decide("suggested"),
  drop: () => decide("drop"),
  skip: () => decide("skip"),
  other: () => (at("chooser").hidden ? openChooser() : closeChooser()),
  undo,
  previous: () => move(-1),
  next: () => move(1),
  open: () => {
    const later = data.rows.findIndex((row, place) => place > current && isOpen(row));
    const place = later >= 0 ? later : data.rows.findIndex(isOpen);
    current = place >= 0 ? place : data.rows.length;
    showRow();
  },
  first: () => {
    current = 0;
    showRow();
  },
};

function move(step) {
  current = Math.min(Math.max(current + step, 0), data.rows.length);
  showRow();
}

const KEYS = {
  k: "keep", s: "suggested", d: "drop", " ": "skip", o: "other", "/": "other", u: "undo",
  arrowleft: "previous", arrowright: "next",
};

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => ACTIONS[button.dataset.do]());
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const key = event.key.toLowerCase();
  // Space and Enter on a button press it.
  if (key === " " && event.target instanceof HTMLButtonElement) event.target.blur();
  if (key === "n") {
    event.preventDefault();
    at("note").focus();
  } else if (KEYS[key]) {
    event.preventDefault();
    ACTIONS[KEYS[key]]();
  }
});

async function start() {
  try {
    const response = await fetch("rows");
    const answer = await response.json();
    if (!response.ok) {
      say(answer.error);
      return;
    }
    data = answer;
    goToNext(0);
  } catch {
    say("The rows cannot be read: the server does not answer. Reload the page in a moment.");
  }
}

start();
