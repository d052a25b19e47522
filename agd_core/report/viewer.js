"use strict";
// Compare two grids in place; name the image under the pointer; copy the command. The page is complete without it.
const find = (selector, within = document) => within.querySelector(selector);
document.documentElement.classList.add("scripted");

function startCompare(box) {
  const grids = [...document.querySelectorAll(".grids .sheet > img")];
  const stage = find(".stage", box), slider = find("input[type=range]", box);
  const sides = ["a", "b"].map((side) => ({
    select: find(`select[name=${side}]`, box), image: find(`img.${side}`, box), tag: find(`.tag.${side}`, box),
  }));
  const choose = () => sides.forEach(({ select, image, tag }) => {
    image.src = grids[select.value].src;
    image.alt = tag.textContent = select.selectedOptions[0].textContent;
  });
  const split = (percent) => {
    slider.value = percent; // left of it A, right of it B
    stage.style.setProperty("--split", `${slider.value}%`);
    sides[0].tag.classList.toggle("off", slider.value === "0");
    sides[1].tag.classList.toggle("off", slider.value === "100");
  };
  const flip = () => split(slider.value === "0" ? 100 : 0);
  const keys = {
    " ": flip, Enter: flip, a: () => split(100), b: () => split(0),
    ArrowLeft: () => split(Number(slider.value) - 5), ArrowRight: () => split(Number(slider.value) + 5),
  };
  sides.forEach(({ select }) => select.addEventListener("change", choose));
  slider.addEventListener("input", () => split(slider.value));
  find("button.flip", box).addEventListener("click", flip);
  find("input[type=checkbox]", box).addEventListener("change", (event) => {
    stage.classList.toggle("difference", event.target.checked);
    if (event.target.checked) split(0);
  });
  stage.addEventListener("click", flip);
  stage.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  choose();
  split(50);
}

function nameImages(figure) {
  const output = find("output", figure), hint = output.value;
  const cells = find(".cells", figure);
  cells.addEventListener("pointerover", (event) => { output.value = event.target.title || hint; });
  cells.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") output.value = hint; });
}

async function copy(button) {
  const text = find(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch { // no clipboard for this page: leave it selected
    getSelection().selectAllChildren(text);
    button.textContent = "Selected";
  }
}

document.querySelectorAll(".compare").forEach(startCompare);
document.querySelectorAll("figure:has(.cells)").forEach(nameImages);
document.querySelectorAll("button[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
