"use strict";
// Before anything is painted: the theme that was chosen on this machine. None: the system's.
const chosen = localStorage.getItem("theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
