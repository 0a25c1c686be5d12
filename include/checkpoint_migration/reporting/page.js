(() => {
  "use strict";
  const SHOWN = 50;
  const root = document.documentElement;

  // Within Airflow the page wears Airflow's colours, not the system's.
  try {
    if (window.parent !== window) {
      const theme = window.parent.document.documentElement.className;
      if (/\b(dark|light)\b/.test(theme)) root.dataset.theme = /\bdark\b/.test(theme) ? "dark" : "light";
    }
  } catch { /* another host's frame */ }

  const text = (tag, content) => Object.assign(document.createElement(tag), { textContent: content });

  function enhance(table, was) {
    const body = table.tBodies[0], rows = [...body.rows], name = table.dataset.list;
    const state = was || { query: "", column: -1, down: false, all: false };
    const tools = text("div", "");
    tools.className = "tools";
    const label = text("label", `Search ${name} `), input = document.createElement("input");
    input.type = "search"; input.id = `search-${name}`; label.htmlFor = input.id; input.value = state.query;
    const told = text("span", ""), more = text("button", "Show all");
    told.setAttribute("role", "status"); more.type = "button";
    tools.append(label, input, told, more);
    table.before(tools);

    const show = () => {
      const query = state.query.toLowerCase();
      let found = 0;
      for (const row of rows) {
        const hit = !query || row.textContent.toLowerCase().includes(query);
        row.toggleAttribute("data-miss", !hit);
        found += hit;
        row.toggleAttribute("data-more", hit && !state.all && found > SHOWN);
      }
      const seen = state.all ? found : Math.min(found, SHOWN);
      told.textContent = `${seen.toLocaleString("en")} of ${found.toLocaleString("en")} shown`;
      more.hidden = seen === found;
    };
    const sort = () => {
      [...table.tHead.rows[0].cells].forEach((cell, column) => {
        if (column === state.column) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      });
      if (state.column < 0) return;
      const numeric = table.tHead.rows[0].cells[state.column].classList.contains("n");
      const key = (row) => {
        const cell = row.cells[state.column].textContent.trim();
        return numeric ? Number(cell.replace(/,/g, "")) || 0 : cell;
      };
      const keyed = rows.map((row) => [key(row), row]);
      keyed.sort(([a], [b]) => (numeric ? a - b : a < b ? -1 : a > b ? 1 : 0) * (state.down ? -1 : 1));
      rows.splice(0, rows.length, ...keyed.map(([, row]) => row));
      body.append(...rows);
    };
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = text("button", cell.textContent);
      button.type = "button";
      button.addEventListener("click", () => {
        state.down = state.column === column && !state.down;
        state.column = column;
        sort(); show();
      });
      cell.replaceChildren(button);
    });
    input.addEventListener("input", () => { state.query = input.value; show(); });
    more.addEventListener("click", () => { state.all = true; show(); input.focus(); });
    sort(); show();
    return state;
  }

  const states = {};
  const enhanceAll = () => {
    for (const table of document.querySelectorAll("table[data-list]"))
      states[table.dataset.list] = enhance(table, states[table.dataset.list]);
  };
  enhanceAll();

  // Airflow's own pages open in Airflow's window, not in the frame of this one.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-outside]");
    if (!link || window.parent === window) return;
    try {
      const above = window.parent.document, outside = above.createElement("a");
      outside.href = link.href;
      above.body.append(outside);
      event.preventDefault();
      outside.click();
      outside.remove();
    } catch { /* another host's frame: as any link */ }
  });

  // A run that goes on: the same page is asked for again, and takes this one's place.
  const said = document.getElementById("said");
  async function refresh() {
    let seconds = Number(root.dataset.refresh);
    if (!seconds) return;
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const open = [...document.querySelectorAll("details")].map((d) => d.open);
          const focused = document.activeElement && document.activeElement.id;
          const before = document.querySelector("main"), now = page.querySelector("main");
          const verdict = (main) => main.querySelector("h1").textContent;
          const heard = before.dataset.phase !== now.dataset.phase;
          before.replaceWith(document.adoptNode(now));
          document.title = page.title;
          [...document.querySelectorAll("details")].forEach((d, n) => { d.open = open[n] ?? d.open; });
          enhanceAll();
          if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
          if (heard) said.textContent = verdict(document);
          if (page.documentElement.dataset.refresh) root.dataset.refresh = page.documentElement.dataset.refresh;
          else delete root.dataset.refresh;
        } else {
          said.className = "kicker";
          said.textContent = `Not up to date: the server answers ${answer.status}. Load the page again.`;
          seconds = answer.status < 500 ? 0 : seconds * 4;
        }
      } catch {
        said.className = "kicker";
        said.textContent = "Not up to date: the server cannot be reached.";
        seconds *= 4;
      }
    }
    if (seconds) setTimeout(refresh, seconds * 1000);
  }
  if (root.dataset.refresh) setTimeout(refresh, Number(root.dataset.refresh) * 1000);
})();
