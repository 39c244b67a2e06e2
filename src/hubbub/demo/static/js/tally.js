/** Counts messages by the numbers that they carry: what is missing, and what came twice. */

export class Tally {
  #seen = new Set();
  /** How many came that had come before. */
  twice = 0;

  /** `last` is the number of the last message before the count; null: the count begins with the first. */
  constructor(last = null) {
    this.before = last;
    this.last = last;
  }

  take(number) {
    if (this.before === null) this.before = number - 1;
    if (number <= this.before || this.#seen.has(number)) this.twice += 1;
    else this.#seen.add(number);
    this.last = Math.max(this.last ?? number, number);
  }

  /** How many came, each counted once. */
  get came() {
    return this.#seen.size;
  }

  /** How many did not come, of those up to the last; up to `newest`, if it is known that there are more. */
  missed(newest = 0) {
    return this.before === null ? 0 : Math.max(this.last, newest) - this.before - this.came;
  }
}
