"use strict";
const element = id => document.getElementById(id);
const [form, text, file, drop, status, error, results] = ["form", "text", "file", "drop", "status", "error", "results"].map(element);
const [access, token, explanation, about, picture, map, words] = ["access", "token", "explanation", "about", "picture", "map", "words"].map(element);
const addresses = [];
let current = 0;
let opener = null;

token.value = sessionStorage.getItem("token") || "";

async function request(path, body) {
  const headers = {};
  if (token.value) headers["Authorization"] = "Bearer " + token.value;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  if (response.status === 401) {
    access.hidden = false;
    token.focus();
  }
  const detail = answer && answer.error;
  throw new Error(detail ? detail.message + (detail.hint ? "\nhint: " + detail.hint : "") : "The server answered with status " + response.status + ".");
}

function fail(cause) {
  status.textContent = "";
  error.textContent = cause.message;
}

function close() {
  explanation.hidden = true;
  results.querySelectorAll("[aria-expanded=true]").forEach(button => button.setAttribute("aria-expanded", "false"));
  if (opener && opener.isConnected) opener.focus();
  opener = null;
}

async function address(item) {
  const response = await request(`v1/items/${item}/image`);
  const url = URL.createObjectURL(await response.blob());
  addresses.push(url);
  return url;
}

async function search(query, label) {
  const number = ++current;
  opener = null;
  close();
  error.textContent = "";
  status.textContent = "Searching…";
  results.replaceChildren();
  results.setAttribute("aria-busy", "true");
  addresses.splice(0).forEach(url => URL.revokeObjectURL(url));
  try {
    const answer = await (await request("v1/search", { query, top: 24 })).json();
    if (number !== current) return;
    const how = answer.ranked_by === "similarity" ? `${answer.compared} of ${answer.items} ${answer.kind} compared exactly` : `${answer.items} ${answer.kind} compared by pooled vectors`;
    status.textContent = `${answer.results.length} results for ${label}; ${how}.`;
    answer.results.forEach(result => show(result, answer, label));
    sessionStorage.setItem("token", token.value);
  } catch (cause) {
    if (number === current) fail(cause);
  } finally {
    if (number === current) results.removeAttribute("aria-busy");
  }
}

function show(result, answer, label) {
  // Only an image and a text have a similarity that can be explained.
  const explained = answer.kind === "images" && answer.ranked_by === "similarity";
  const card = document.createElement(explained ? "button" : "div");
  if (answer.kind === "images") {
    const image = document.createElement("img");
    image.alt = result.name;
    card.append(image);
    address(result.item).then(url => { image.src = url; }, () => { image.alt = result.name + " (the image cannot be read)"; });
  }
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = `${result.rank}. ` + (result.similarity === undefined ? "cosine " + result.pooled.toFixed(4) : "similarity " + result.similarity.toFixed(4));
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = result.name;
  card.append(score, name);
  if (explained) {
    card.type = "button";
    card.setAttribute("aria-expanded", "false");
    card.setAttribute("aria-controls", "explanation");
    card.onclick = () => explain(result, text.value, card, card.querySelector("img"));
  }
  const line = document.createElement("li");
  line.append(card);
  results.append(line);
}

async function explain(result, caption, card, image) {
  error.textContent = "";
  try {
    const data = await (await request("v1/explain", { image: { item: result.item }, caption })).json();
    results.querySelectorAll("[aria-expanded=true]").forEach(button => button.setAttribute("aria-expanded", "false"));
    card.setAttribute("aria-expanded", "true");
    opener = card;
    picture.src = image.src;
    picture.alt = result.name;
    words.replaceChildren();
    const buttons = [];
    const names = data.tokens.map((entry, index) => entry.kind === "class" ? "the class token" : entry.kind === "patch" ? "patch " + (index + 1 - (data.tokens[0].kind === "class")) : entry.kind === "fused" ? "the fused patch" : "group " + (index + 1 - (data.tokens[0].kind === "class")));
    const choose = chosen => {
      draw(data.grid, chosen < 0 ? data.patches.map(patch => patch.contribution) : data.words[chosen].patches);
      buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(index - 1 === chosen)));
      const word = data.words[chosen];
      about.textContent = chosen < 0
        ? `Similarity ${data.similarity.toFixed(4)}: all patches add ${(data.similarity - data.class_token).toFixed(4)}, the class token ${data.class_token.toFixed(4)}.`
        : `“${word.text}” matches ${names[word.token]} with ${word.similarity.toFixed(4)}.` + (word.token === word.spatial_token ? "" : ` The map is of the next token, ${names[word.spatial_token]} with ${word.spatial_similarity.toFixed(4)}.`);
    };
    ["whole text", ...data.words.map(word => word.text)].forEach((label, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.onclick = () => choose(index - 1);
      buttons.push(button);
      words.append(button);
    });
    choose(-1);
    explanation.hidden = false;
    explanation.focus();
    explanation.scrollIntoView({ block: "nearest" });
  } catch (cause) {
    fail(cause);
  }
}

/* One pixel a patch; the browser enlarges it. Red adds, blue takes away. */
function draw([rows, columns], parts) {
  map.width = columns;
  map.height = rows;
  const pixels = new ImageData(columns, rows);
  const largest = Math.max(1e-300, ...parts.map(Math.abs));
  parts.forEach((part, index) => {
    pixels.data.set([...(part < 0 ? [30, 90, 220] : [230, 60, 20]), Math.round(190 * Math.abs(part) / largest)], 4 * index);
  });
  map.getContext("2d").putImageData(pixels, 0, 0);
}

function searchFile(chosen) {
  if (!chosen) return;
  const reader = new FileReader();
  reader.onload = () => search({ image: reader.result.replace(/^data:[^,]*,/, "data:application/octet-stream;base64,") }, "the picture " + chosen.name);
  reader.onerror = () => fail(new Error("The file cannot be read."));
  reader.readAsDataURL(chosen);
}

form.onsubmit = event => {
  event.preventDefault();
  if (text.value.trim()) search({ text: text.value }, `“${text.value.trim()}”`);
  else text.focus();
};
file.onchange = () => searchFile(file.files[0]);
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, event => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", event => {
  event.preventDefault();
  drop.classList.remove("over");
  searchFile(event.dataTransfer.files[0]);
});
element("close").onclick = close;
document.addEventListener("keydown", event => { if (event.key === "Escape" && !explanation.hidden) close(); });
