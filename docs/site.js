// Of the site alone. The search reads a dash before a word as "without": an option is found by its
// name, so the two dashes before it are taken off as they are typed.
document.addEventListener(
  "input",
  ({ target }) => {
    if (target.matches(".md-search__input")) {
      target.value = target.value.replace(/(^|\s)--(?=\w)/g, "$1");
    }
  },
  { capture: true },
);
