// Applies the theme the reader chose before the first paint. Not a module: a module would run after it.
"use strict";
try {
  const chosen = localStorage.getItem("tidegate-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is refused in some private windows; the system's preference holds then.
}
