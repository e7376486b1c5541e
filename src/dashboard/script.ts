// What runs in the browser: it swaps in the fragments that have changed. It keeps what a reader has open, where one has scrolled to and
// where the keyboard is, and leaves a part alone while text of it is selected. A page that nobody sees asks for nothing.

export const SCRIPT = `'use strict';
(() => {
  const live = document.getElementById('live');
  const pause = document.getElementById('pause');
  const FOCUSABLE = 'a[href],button,summary,[tabindex]';
  let source = null;
  let again = 0;
  let paused = false;

  function say(kind, text) {
    if (live.textContent === text) return;
    live.dataset.kind = kind;
    live.textContent = text;
  }

  function swap(part, html) {
    const selection = getSelection();
    if (selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode)) return;
    const focused = [...part.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    const open = [...part.querySelectorAll('details')].map((one) => one.open);
    const scrolled = [...part.querySelectorAll('.scrolls')].map((one) => one.scrollLeft);
    part.innerHTML = html;
    part.querySelectorAll('details').forEach((one, index) => { one.open = open[index] === true; });
    part.querySelectorAll('.scrolls').forEach((one, index) => { one.scrollLeft = scrolled[index] || 0; });
    if (focused >= 0) part.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  }

  function start() {
    clearTimeout(again);
    if (source !== null || paused || document.hidden) return;
    source = new EventSource('dashboard/events');
    source.onmessage = ({ data }) => {
      say('live', 'Live');
      for (const [name, html] of Object.entries(JSON.parse(data))) {
        const part = document.getElementById('f-' + name);
        if (part !== null) swap(part, html);
      }
    };
    source.onerror = () => {
      say('lost', 'Connection lost; trying again');
      if (source === null || source.readyState !== EventSource.CLOSED) return;
      source = null;
      again = setTimeout(start, 5000);
    };
  }

  function stop() {
    clearTimeout(again);
    source?.close();
    source = null;
  }

  pause.hidden = false;
  pause.addEventListener('click', () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    if (paused) {
      stop();
      say('paused', 'Paused');
    } else start();
  });
  document.addEventListener('visibilitychange', () => (document.hidden ? stop() : start()));
  addEventListener('pagehide', stop);
  addEventListener('pageshow', start);
  start();
})();
`;
