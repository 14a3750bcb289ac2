// Conveniences only: the page works without any of this.
"use strict";

// What was done is said to whoever listens, and is not part of the address any more.
if (new URLSearchParams(location.search).has("done")) {
  const address = new URL(location.href);
  address.searchParams.delete("done");
  history.replaceState(null, "", address);
}

// A form is sent once.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  for (const button of event.target.querySelectorAll("button")) {
    button.setAttribute("aria-disabled", "true");
    button.addEventListener("click", (again) => again.preventDefault());
  }
});

// "/" goes to the first field to look for something.
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey) return;
  const field = document.querySelector("[role=search] input");
  if (field) {
    event.preventDefault();
    field.focus();
  }
});
