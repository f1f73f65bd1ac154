() => {
  // Keys, copying, the permalink, and what screen readers are told: everything else is the server's.
  const byId = (id) => document.getElementById(id);
  const button = (id) => { const found = byId(id); return found && (found.matches("button") ? found : found.querySelector("button")); };
  const click = (id) => { const found = button(id); if (found && !found.disabled && found.offsetParent !== null) found.click(); };
  const keys = { a: "vote-a", b: "vote-b", t: "vote-tie", x: "vote-bad", n: "next", r: "regenerate", e: "edit" };
  const names = { "vote-a": "A", "vote-b": "B", "vote-tie": "T", "vote-bad": "X" };

  document.addEventListener("keydown", (event) => {
    const at = event.target;
    const typing = at.matches && at.matches("textarea, input, select, [contenteditable]");
    if (event.key === "Escape") { click("stop"); return; }
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const id = keys[event.key.toLowerCase()];
    if (id) { event.preventDefault(); click(id); }
  });

  const toClipboard = async (text) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = document.createElement("textarea");
      area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
    }
  };
  document.addEventListener("click", async (event) => {
    const copy = event.target.closest && event.target.closest(".sp-copy");
    const link = event.target.closest && event.target.closest("#copy-link");
    if (!copy && !link) return;
    await toClipboard(copy ? copy.dataset.text : location.href);
    const shown = copy || button("copy-link");
    const before = shown.textContent;
    shown.textContent = "Copied";
    setTimeout(() => { if (shown.isConnected) shown.textContent = before; }, 1200);
  });

  const settle = () => {
    for (const [id, key] of Object.entries(names)) { const found = button(id); if (found) { found.dataset.key = key; found.setAttribute("aria-keyshortcuts", key); } }
    const status = byId("status");
    if (status && !status.hasAttribute("aria-live")) { status.setAttribute("role", "status"); status.setAttribute("aria-live", "polite"); }
    const thread = document.querySelector("#answers .sp-thread");
    const query = thread && thread.dataset.link;
    if (query) {
      const now = new URLSearchParams(location.search), then = new URLSearchParams(query);
      for (const name of ["__theme", "view"]) if (now.has(name)) then.set(name, now.get(name));
      const wanted = "?" + then.toString();
      if (wanted !== location.search) history.replaceState(null, "", wanted);
    }
  };
  new MutationObserver(settle).observe(document.body, { childList: true, subtree: true });
  settle();
}
