// What this service can be asked.

import { Failure, failureOf, keyHeaders, talk } from "/look/talk.js";

const query = (values) => new URLSearchParams(values).toString();

export const health = () => talk("/health");
export const collections = () => talk("/collections");
export const makeCollection = (name) => talk("/collections", { method: "POST", value: { name } });
export const dropCollection = (name) =>
  talk(`/collections/${encodeURIComponent(name)}`, { method: "DELETE" });

export function ask(question, collection, signal) {
  return talk("/ask", { method: "POST", value: { question, collection }, signal });
}

export function documents(collection, after = "") {
  return talk(`/documents?${query({ collection, after, limit: 100 })}`);
}

export function document(collection, id) {
  return talk(`/documents/${encodeURIComponent(id)}?${query({ collection })}`);
}

export function remove(collection, id) {
  return talk(`/documents/${encodeURIComponent(id)}?${query({ collection })}`, { method: "DELETE" });
}

export const job = (id) => talk(`/jobs/${id}`);

// Sends one file; `step` is told the share that has been sent. Gives the job. (fetch cannot tell that.)
export function upload(file, collection, step) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/documents?${query({ collection, name: file.name })}`);
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && step(event.loaded / event.total);
    request.onerror = () => reject(new Failure("The upload broke off; is the service still running?"));
    request.onload = () => {
      if (request.status === 202) resolve(request.response.jobs[0]);
      else reject(failureOf(request.status, request.response, request.getResponseHeader("Retry-After")));
    };
    request.send(file);
  });
}
