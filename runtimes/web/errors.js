/** An error that is one line for people: what is wrong, where, what to do next. `name` as in runtimes/errors.py. */
export class EdgewiseError extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

export const inputError = (message) => new EdgewiseError("InputError", message);
export const bundleError = (message) => new EdgewiseError("BundleError", message);
export const engineError = (message) => new EdgewiseError("EngineError", message);

/** The first line of somebody else's error (some engines throw numbers and strings). */
export function firstLine(error) {
  const text = String(error?.message ?? error).trim() || String(error?.name ?? "no message");
  return text.split("\n")[0].slice(0, 300);
}
