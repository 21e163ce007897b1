// The form works by itself; with this it answers without loading the page anew. The server's HTML, in which every
// text is escaped, is put in place of the old result: there is one rendering, in page.html.
const form = document.getElementById("ask");
const button = form.querySelector("button");

function show(html) {
  const page = new DOMParser().parseFromString(html, "text/html");
  const fresh = page.getElementById("result");
  // Its content, not the element: a screen reader announces changes inside of a live region that it knows.
  if (fresh) document.getElementById("result").replaceChildren(...fresh.childNodes);
  // What is said of the model: another one may have answered than the last time.
  const about = page.getElementById("about");
  if (about) document.getElementById("about").replaceChildren(...about.childNodes);
  return Boolean(fresh);
}

function showProblem(message) {
  const problem = document.createElement("p");
  problem.className = "problem";
  problem.setAttribute("role", "alert");
  problem.textContent = message;
  document.getElementById("result").replaceChildren(problem);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  try {
    // With the button's own field: "Why?" is another one than that of the form.
    const fields = new URLSearchParams(new FormData(form, event.submitter));
    const response = await fetch(form.action, { method: "POST", body: fields });
    if (!show(await response.text())) showProblem(`The server refused this message (${response.status}).`);
  } catch {
    showProblem("The server cannot be reached. Try again in a moment.");
  } finally {
    button.disabled = false;
  }
});

document.getElementById("text").addEventListener("keydown", (event) => {
  // While an input method is composing, Enter accepts what it proposes.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
