"use strict";
// Draws the cards of the page from the JSON in it. Names are put into the page as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [NAME, PREDICTED, TRUTH, PROBABILITY, IMAGE, MAPS, STRIP, FEATURES, LABELS] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const BATCH = 48; // cards that are drawn at once
  const FEW = 4; // methods that are buttons on a card
  const root = document.documentElement.style;
  const alphabet = new Intl.Collator("en", { numeric: true }); // 2 before 10
  const byId = (id) => document.getElementById(id);
  const state = { text: "", class: -1, verdict: "", method: -1, sort: "balanced", shown: [], drawn: 0 };
  const own = new Map(); // the method that was chosen on a card of its own

  // -------------------------------------------------------------------------------- building blocks

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const name = (text, className = "") => make("bdi", className, text); // one script does not turn its surroundings
  const isolated = (text) => `\u2068${text}\u2069`; // the same where there is only text
  function percent(value, digits = 1) {
    const text = (share) => `${(100 * share).toFixed(digits)}\u00a0%`;
    const step = 0.01 / 10 ** digits;
    if (value < 1 && text(value) === text(1)) return `> ${text(1 - step)}`;
    return value > 0 && text(value) === text(0) ? `< ${text(step)}` : text(value);
  }
  function path(text) { // its parts in order, whatever scripts they are in
    const box = make("span", "cut");
    box.dir = "ltr";
    box.title = isolated(text);
    text.split("/").forEach((part, n) => box.append(n ? "/" : "", name(part)));
    return box;
  }
  const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;

  function press(label, isPressed, act) {
    const button = make("button", "", label);
    button.type = "button";
    button.setAttribute("aria-pressed", isPressed);
    button.addEventListener("click", (event) => { event.stopPropagation(); act(); });
    return button;
  }
  function picture(file, alt, className) {
    const image = make("img", className);
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = alt;
    image.src = file.startsWith("data:") ? file : file.split("/").map(encodeURIComponent).join("/");
    return image;
  }
  function vary(element, values) {
    for (const [key, value] of Object.entries(values)) element.style.setProperty(`--${key}`, value);
    return element;
  }
  function tile(sheet, kind, row, column, alt) {
    if (!sheet || !sheet[kind]) return make("span", "tile");
    const columns = kind === "crops" ? data.crops : 1 + Math.max(...sheet.shares.map((shares) => shares.length));
    const image = vary(picture(sheet[kind], alt, ""), { rows: sheet.features.length, row, columns, column });
    return make("span", "tile", image);
  }
  function stage(card, map, part = 0, parts = 1) {
    const box = make("span", data.is_sharp ? "stage sharp" : "stage", picture(card[IMAGE], "", "photo"));
    if (map) box.append(vary(picture(map, "", parts > 1 ? "heat strip" : "heat"), { part, parts }));
    return box;
  }
  const sheetOf = (card) => data.sheets[card[PREDICTED]];
  const isWrong = (card) => card[TRUTH] >= 0 && card[TRUTH] !== card[PREDICTED];
  const methodsOf = (card) => data.methods.map((_, n) => n).filter((n) => card[MAPS][n]);
  function methodOf(card) {
    if (own.has(card)) return own.get(card);
    return state.method >= 0 ? state.method : methodsOf(card)[0] ?? -1;
  }

  function verdict(card) {
    const probability = make("span", "probability", percent(card[PROBABILITY]));
    const box = make("div", "verdict", make("div", "top", name(data.classes[card[PREDICTED]], "class"), probability));
    if (isWrong(card)) box.append(make("div", "truth", "wrong, it is ", name(data.classes[card[TRUTH]])));
    else if (card[TRUTH] >= 0) box.append(make("div", "truth", "correct"));
    if (card[LABELS].length) {
      const labels = make("div", "labels", "labels: ");
      card[LABELS].forEach((label, n) => labels.append(n ? ", " : "", name(label)));
      box.append(labels);
    }
    return box;
  }
  function tabs(card, className, act) {
    const row = make("div", className);
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", "Method");
    for (const n of methodsOf(card)) row.append(press(data.methods[n], n === methodOf(card), () => act(n)));
    return row;
  }
  function menu(card, act) { // where there are more methods than a card has room for
    const box = make("select");
    box.setAttribute("aria-label", "Method");
    for (const n of methodsOf(card)) box.append(new Option(data.methods[n], n, false, n === methodOf(card)));
    box.addEventListener("change", () => act(Number(box.value)));
    return make("div", "menu", box);
  }
  function features(card, isLarge) {
    const sheet = sheetOf(card);
    if (!card[FEATURES].length) return make("div", "none", "No relevant feature of this class responds to this image.");
    const list = make("ul", "features");
    const best = card[FEATURES][0][1];
    card[FEATURES].forEach(([row, r], part) => {
      const [title, weight, share] = sheet.features[row];
      const words = make("span", "words", make("span", "name cut", name(title)));
      words.firstChild.style.display = "block";
      words.append(make("span", "r", `r\u00a0=\u00a0${r.toPrecision(2)}`));
      if (isLarge) words.append(make("span", "r second", `weight ${weight.toPrecision(3)}, ${percent(share, 0)} of the class`));
      words.append(make("span", "bar", vary(make("i"), { share: r / best })));
      const looks = tile(sheet, "averages", row, 0, `What ${isolated(title)} looks like`);
      const button = make("button", "", stage(card, card[STRIP], part, card[FEATURES].length), looks, words);
      button.type = "button";
      button.title = "Where it is seen in this image, what it looks like; click for its image parts";
      button.addEventListener("click", () => openSheet(card[PREDICTED], row));
      list.append(make("li", "", button));
    });
    return list;
  }

  // -------------------------------------------------------------------------------- the cards

  function draw(card) {
    const box = make("article", isWrong(card) ? "card is-wrong" : "card");
    const fill = () => {
      const enlarge = make("button", "enlarge", stage(card, card[MAPS][methodOf(card)]));
      enlarge.type = "button";
      enlarge.style.width = "100%";
      enlarge.setAttribute("aria-label", `Enlarge ${isolated(card[NAME])}`);
      enlarge.addEventListener("click", () => openCard(state.shown.indexOf(card)));
      const top = verdict(card);
      top.append(make("div", "file", path(card[NAME])));
      const choose = (n) => { own.set(card, n); fill(); };
      const count = methodsOf(card).length;
      const choice = count < 2 ? null : count > FEW ? menu(card, choose) : tabs(card, "tabs", choose);
      box.replaceChildren(...[enlarge, choice, top, features(card, false)].filter((child) => child !== null));
    };
    fill();
    return box;
  }
  function drawMore() {
    const next = state.shown.slice(state.drawn, state.drawn + BATCH);
    byId("cards").append(...next.map(draw));
    state.drawn += next.length;
    byId("printed").textContent = state.drawn < state.shown.length
      ? `The first ${state.drawn} of ${plural(state.shown.length, "image")}; the page draws more as it is scrolled.` : "";
  }
  const ORDERS = {
    balanced: () => 0,
    "most confident": (a, b) => b[PROBABILITY] - a[PROBABILITY],
    "least confident": (a, b) => a[PROBABILITY] - b[PROBABILITY],
    name: (a, b) => alphabet.compare(a[NAME], b[NAME]),
  };
  function refresh() {
    const wanted = state.text.toLowerCase();
    state.shown = data.cards.filter((card) =>
      (state.class < 0 || card[PREDICTED] === state.class || card[TRUTH] === state.class)
      && (state.verdict === "" || (card[TRUTH] >= 0 && isWrong(card) === (state.verdict === "wrong")))
      && (state.method < 0 || card[MAPS][state.method])
      && (wanted === "" || card[NAME].toLowerCase().includes(wanted)));
    state.shown.sort(ORDERS[state.sort]);
    state.drawn = 0;
    byId("cards").replaceChildren();
    drawMore();
    const [shown, all] = [state.shown.length, data.cards.length];
    byId("count").textContent = shown === all ? plural(all, "image") : `${shown.toLocaleString("en")} of ${plural(all, "image")}`;
    byId("nothing").hidden = shown > 0;
  }

  // -------------------------------------------------------------------------------- enlarged

  const dialog = byId("dialog");
  let place = -1; // of the card in it, among those shown
  let back = null; // the element that a sheet was opened from
  function open(title, step, ...content) {
    const bars = make("div", "bars");
    const focused = document.activeElement?.getAttribute("aria-label"); // to stay on the same button
    const button = (label, sign, act, isDisabled) => {
      const one = make("button", "", sign);
      one.type = "button";
      one.setAttribute("aria-label", label);
      one.disabled = isDisabled;
      one.addEventListener("click", act);
      return one;
    };
    bars.append(title);
    if (step) {
      bars.append(button("Previous", "←", () => step(-1), place <= 0));
      bars.append(button("Next", "→", () => step(1), place >= state.shown.length - 1));
    } else if (place >= 0) bars.append(button("Back to the image", "←", () => openCard(place), false));
    bars.append(button("Close", "✕", () => dialog.close(), false));
    dialog.replaceChildren(bars, ...content);
    if (!dialog.open) { back = document.activeElement; dialog.showModal(); dialog.focus(); } else (focused && [...bars.children].find((one) => one.getAttribute("aria-label") === focused && !one.disabled) || dialog).focus();
    dialog.scrollTop = 0;
  }
  function turn(by) {
    if (place + by >= 0 && place + by < state.shown.length) openCard(place + by);
  }
  function openCard(n) {
    place = n;
    const card = state.shown[n];
    const method = methodOf(card);
    const left = make("div", "left", stage(card, card[MAPS][method]));
    left.firstChild.setAttribute("role", "img");
    left.firstChild.setAttribute("aria-label", `${isolated(card[NAME])}, with the map laid over it`);
    if (methodsOf(card).length) left.append(tabs(card, "pills", (m) => { own.set(card, m); openCard(n); }));
    left.append(make("label", "strength", "Strength of the map ", slider()));
    const right = make("div", "right", verdict(card), features(card, true));
    if (card[FEATURES].length) right.append(make("p", "note", data.words));
    const columns = make("div", isWrong(card) ? "large is-wrong" : "large", left, right);
    open(path(card[NAME]), turn, columns);
  }
  function openSheet(c, chosen = -1) {
    const sheet = data.sheets[c];
    const show = press("Show its images", false, () => { dialog.close(); byId("class").value = c; state.class = c; refresh(); byId("tools").scrollIntoView(); });
    show.removeAttribute("aria-pressed");
    const note = make("p", "note", `${plural(sheet.features.length, "relevant feature")}, the largest weight first: the average of the image parts with the strongest response, aligned and, last, as they are; and the best of these parts. `, show);
    const box = make("div", "sheet", make("h3", "", name(data.classes[c])), note);
    sheet.features.forEach(([title, weight, share, sees], row) => {
      const bar = make("span", "bar", vary(make("i"), { share }));
      const words = make("div", "words", `weight ${weight.toPrecision(3)}, ${percent(share, 0)} of the class`, bar, sees);
      const text = make("div", "text", make("div", "name", name(title)), words);
      const crops = make("div", "crops");
      for (let n = 0; n < sheet.counts[row]; n++) crops.append(tile(sheet, "crops", row, n, ""));
      const averages = make("div", "averages");
      const kinds = sheet.shares[row].map((share) => (share < 1 ? `aligned, ${percent(share, 0)} of the parts` : "aligned"));
      [...kinds, "as they are"].forEach((kind, n) => {
        const average = tile(sheet, "averages", row, n, `The average image of ${isolated(title)}, ${kind}`);
        average.title = kind;
        averages.append(average);
      });
      box.append(make("div", row === chosen ? "kind chosen" : "kind", text, averages, crops));
    });
    if (chosen < 0) place = -1;
    open(make("span", "cut", "Relevant features of a class"), null, box);
    if (chosen > 0) box.querySelector(".chosen").scrollIntoView({ block: "center" });
  }
  dialog.addEventListener("close", () => { // which may come after it was opened again
    if (dialog.open) return;
    dialog.replaceChildren();
    place = -1;
    if (back) back.focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && event.target.type !== "range" && dialog.querySelector(".large")) turn(by);
  });

  // -------------------------------------------------------------------------------- the tools

  function slider() {
    const input = make("input");
    Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value: root.getPropertyValue("--strength") });
    input.setAttribute("aria-label", "Strength of the map");
    input.addEventListener("input", () => {
      root.setProperty("--strength", input.value);
      for (const other of document.querySelectorAll("input[type=range]")) other.value = input.value;
    });
    return input;
  }
  function select(id, options, act) {
    const box = byId(id);
    for (const [value, text] of options) {
      const option = make("option", "", text);
      option.value = value;
      box.append(option);
    }
    box.addEventListener("change", () => { act(box.value); refresh(); });
  }
  function pills(id, options, get, set) {
    const fill = () => byId(id).replaceChildren(...options.map(([value, text]) =>
      press(text, get() === value, () => { set(value); fill(); refresh(); })));
    fill();
  }
  function tools() {
    root.setProperty("--aspect", data.aspect);
    root.setProperty("--strength", 0.75);
    byId("strength").append(slider());
    byId("search").addEventListener("input", (event) => { state.text = event.target.value; refresh(); });
    const counts = new Map();
    for (const card of data.cards) {
      for (const c of new Set([card[PREDICTED], card[TRUTH]])) counts.set(c, (counts.get(c) ?? 0) + 1);
    }
    const classes = [...counts.keys()].filter((c) => c >= 0).sort((a, b) => a - b);
    select("class", [[-1, "All classes"], ...classes.map((c) => [c, `${isolated(data.classes[c])} (${counts.get(c)})`])], (c) => { state.class = Number(c); });
    select("sort", Object.keys(ORDERS).map((order) => [order, order]), (order) => { state.sort = order; });
    const isKnown = data.cards.some((card) => card[TRUTH] >= 0);
    byId("verdict").hidden = !isKnown;
    pills("verdict", [["", "All"], ["right", "Right"], ["wrong", "Wrong"]], () => state.verdict, (v) => { state.verdict = v; });
    byId("method").hidden = data.methods.length < 2;
    pills("method", [[-1, "All methods"], ...data.methods.map((title, n) => [n, title])], () => state.method, (m) => { state.method = m; own.clear(); });
    new IntersectionObserver((entries) => { if (entries[0].isIntersecting) drawMore(); }, { rootMargin: "1200px" }).observe(byId("more"));
  }

  function drawClasses(first = 0) {
    const all = Object.keys(data.sheets).map(Number);
    for (const c of all.slice(first, first + BATCH)) {
      const sheet = data.sheets[c];
      const row = make("span", "row");
      for (let n = 0; n < Math.min(5, sheet.features.length); n++) row.append(tile(sheet, "averages", n, 0, ""));
      const top = make("span", "top", name(data.classes[c], "class"), make("span", "probability", plural(sheet.features.length, "feature")));
      const button = make("button", "sheet-link", top, row);
      button.type = "button";
      button.addEventListener("click", () => openSheet(c));
      byId("classes").append(button);
    }
    if (first + BATCH < all.length) {
      const rest = all.length - first - BATCH;
      const more = make("button", "sheet-link", `Show ${plural(Math.min(BATCH, rest), "more class")} of ${rest.toLocaleString("en")}`);
      more.addEventListener("click", () => { more.remove(); drawClasses(first + BATCH); });
      byId("classes").append(more);
    }
  }

  // -------------------------------------------------------------------------------- tables

  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = make("button", "", ...head.childNodes);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const isUp = head.getAttribute("aria-sort") !== "ascending";
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [row.cells[column].textContent, row]);
        rows.sort(([a], [b]) => (isUp ? 1 : -1) * alphabet.compare(a, b));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  tools();
  refresh();
  drawClasses();
  document.querySelectorAll("section table").forEach(sortable);
})();
