// What this service can be asked.

import { talk } from "/look/talk.js";

const query = (values) => new URLSearchParams(values).toString();
const of = (name) => `/series/${encodeURIComponent(name)}`;

export const health = () => talk("/health");
export const series = () => talk("/series");
export const points = (name, since, limit) => talk(`${of(name)}/points?${query({ since, limit })}`);
export const log = (name) => talk(`${of(name)}/log?limit=30`);
export const threshold = (name) => talk(`${of(name)}/threshold`);
export const explain = (name, at) => talk(`${of(name)}/explain?${query({ at })}`);

export function preview(name, value, signal) {
  return talk(`${of(name)}/threshold/preview?${query({ threshold: value, days: 7 })}`, { signal });
}

export function setThreshold(name, value) {
  return talk(`${of(name)}/threshold`, { method: "PUT", value: { threshold: value } });
}

export const refit = (name, alarmed) => talk(`${of(name)}/refit`, { method: "POST", value: { alarmed } });

export const alarms = (name) => talk(`/alarms?${query(name ? { series: name, limit: 50 } : { limit: 50 })}`);

export function acknowledge(id, note) {
  return talk(`/alarms/${encodeURIComponent(id)}/ack`, { method: "POST", value: { note } });
}
