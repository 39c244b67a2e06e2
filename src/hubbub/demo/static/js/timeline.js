/** A list of numbered lines, in the order of their numbers, each once. It follows its end while the reader is there. */

import { element } from "./page.js";

export class Timeline {
  #numbers = new Set();

  constructor(list, limit = 300) {
    this.list = list;
    this.limit = limit;
  }

  /** The offset of the oldest line that is shown; undefined where there is none. */
  get oldest() {
    const first = this.list.querySelector("[data-offset]");
    return first ? Number(first.dataset.offset) : undefined;
  }

  get #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.list;
    return scrollHeight - scrollTop - clientHeight < 80;
  }

  /** Put a line in its place, unless its number is there. */
  insert(item, number, offset) {
    if (this.#numbers.has(number)) return;
    this.#numbers.add(number);
    item.dataset.number = number;
    item.dataset.offset = offset;
    this.#add(item, this.#after(number));
  }

  note(text) {
    this.#add(element("li", { class: "note" }, text), null);
  }

  /** What is above has nothing to do with what comes: numbers begin anew. */
  seal(text) {
    this.note(text);
    this.list.lastElementChild.dataset.seal = "";
    this.#numbers.clear();
    for (const item of this.list.children) delete item.dataset.offset;
  }

  clear() {
    this.#numbers.clear();
    this.list.replaceChildren();
  }

  /** Add lines above without moving those that are read. */
  keepPlace(add) {
    const { list } = this;
    const below = list.scrollHeight - list.scrollTop;
    add();
    list.scrollTop = list.scrollHeight - below;
  }

  /** The first line whose number is greater; notes count for nothing. */
  #after(number) {
    let found = null;
    for (let each = this.list.lastElementChild; each; each = each.previousElementSibling) {
      if ("seal" in each.dataset || each.dataset.number < number) break;
      if (each.dataset.number > number) found = each;
    }
    return found;
  }

  #add(item, next) {
    const { list } = this;
    const follows = this.#isAtEnd;
    list.insertBefore(item, next);
    if (!follows) return;
    while (list.children.length > this.limit) {
      this.#numbers.delete(Number(list.firstElementChild.dataset.number));
      list.firstElementChild.remove();
    }
    list.scrollTop = list.scrollHeight;
  }
}
