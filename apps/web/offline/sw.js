// Keeps every file of the page: fetched once, each against its sha256, then served without a network.
const VERSION = "@VERSION@";
const FILES = [/*FILES*/]; // [name, sha256 as in an integrity attribute, bytes]
const OURS = `edgewise ${registration.scope} `;
const CACHE = OURS + VERSION;

addEventListener("install", (event) => event.waitUntil(fill()));
addEventListener("activate", (event) => event.waitUntil(takeOver()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(registration.scope)) event.respondWith(answer(request));
});

/** A fetch that breaks off is taken up by the next visit: what lies in the cache is not fetched again. */
async function fill() {
  const cache = await caches.open(CACHE);
  const total = FILES.reduce((sum, [, , bytes]) => sum + bytes, 0);
  let done = 0;
  for (const [name, integrity, bytes] of FILES) {
    const url = new URL(name, registration.scope);
    if (!(await cache.match(url))) {
      const found = await fetch(url, { integrity, cache: "no-cache" });
      if (!found.ok) throw new Error(`${name}: HTTP ${found.status}`);
      await cache.put(url, found);
    }
    done += bytes;
    for (const client of await clients.matchAll({ includeUncontrolled: true })) client.postMessage({ done, total });
  }
}

async function takeOver() {
  const old = (await caches.keys()).filter((name) => name.startsWith(OURS) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const name = request.mode === "navigate" ? new URL("index.html", registration.scope) : request;
  return (await cache.match(name, { ignoreSearch: true })) ?? fetch(request);
}
