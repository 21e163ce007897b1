// Enter sends a message and Shift+Enter breaks the line, as on the page at `/`. Gradio's own box of several lines does
// the opposite, so both events of the key are taken before they get there.
for (const name of ["keydown", "keypress"]) {
  document.addEventListener(name, takeEnter, { capture: true });
}

function takeEnter(event) {
  // While an input method is composing, Enter accepts what it proposes.
  if (event.key !== "Enter" || event.isComposing || !event.target.closest("#message textarea")) return;

  event.stopPropagation();
  if (event.shiftKey) return;
  event.preventDefault();
  document.getElementById("ask").click();
}
