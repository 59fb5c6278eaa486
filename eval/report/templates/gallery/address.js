// The state of the gallery in the address, as #gallery?view=best&image=cfg:101: a link shows what its sender saw.
const galleryAddress = (() => {
  const START = "#gallery?";
  // Typing, dragging and walking through images change the address once they rest.
  const REST = 250;
  let waiting = 0;
  let pending = null;

  // The state as an object of texts, of which nothing is certain: anybody can write a link. Null at the anchor of a
  // section, which says nothing of it.
  const read = () => {
    if (!location.hash) return {};
    return location.hash.startsWith(START) ? Object.fromEntries(new URLSearchParams(location.hash.slice(START.length))) : null;
  };
  const put = (method, state, marker) => {
    const text = String(new URLSearchParams(Object.entries(state))).replaceAll("%3A", ":").replaceAll("%2C", ",");
    const hash = START + text;
    // A page that nothing was chosen in keeps the address that it was opened at.
    if (hash === location.hash || (!text && !location.hash)) return;
    // An embedded page has no address of its own, and goes without.
    try { history[method](marker, "", hash); } catch { /* nothing to do */ }
  };
  const flush = () => {
    clearTimeout(waiting);
    if (pending) put("replaceState", pending, history.state);
    pending = null;
  };
  const replace = (state) => {
    clearTimeout(waiting);
    pending = state;
    waiting = setTimeout(flush, REST);
  };
  // A step that Back undoes; `marker` is what `history.state` holds of it.
  const push = (state, marker = null) => {
    flush();
    put("pushState", state, marker);
  };
  return {flush, push, read, replace};
})();
