// Requests to the service. Errors are its problem details (RFC 9457), with `title`, `message`, `hint` and `requestId`.

const KEY = "costbank-key";

export class ServiceError extends Error {
  constructor(title, message, hint = "", status = 0, code = "", requestId = "") {
    super(message);
    Object.assign(this, { title, hint, status, code, requestId });
  }
}

export const base = new URL(".", document.baseURI.replace(/#.*/, "")).href.replace(/\/$/, "");
export const key = () => sessionStorage.getItem(KEY);
export const setKey = (value) => sessionStorage.setItem(KEY, value);
export const url = (path, query = {}) => {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  return `${base}${path}${text ? `?${text}` : ""}`;
};
export const bankPath = (reference) => `/v1/banks/${encodeURIComponent(reference).replaceAll("%40", "@")}`;

let onKeyNeeded = () => {};
export const whenKeyNeeded = (call) => { onKeyNeeded = call; };

async function request(path, query, signal, accept) {
  const headers = { Accept: accept };
  // A header takes bytes: those of the key in UTF-8.
  if (key()) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(key()))}`;
  let response;
  try {
    response = await fetch(url(path, query), { headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service did not answer", `${base} cannot be reached.`,
      "Check that `costbank serve` is still running, then try again.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) onKeyNeeded();
  throw new ServiceError(problem.title ?? `The service answered ${response.status}`,
    problem.detail ?? response.statusText, problem.hint, response.status, problem.code,
    problem.request_id ?? response.headers.get("X-Request-Id") ?? "");
}

export async function get(path, query = {}, signal = undefined) {
  const response = await request(path, query, signal, "application/json, application/problem+json");
  return response.json();
}

// A float32 array of NumPy's format 1.0 to 3.0, in the order of C.
export async function getArray(path, query = {}, signal = undefined) {
  const response = await request(path, query, signal, "application/x-npy, application/problem+json");
  const data = await response.arrayBuffer();
  const view = new DataView(data);
  const isFirst = view.getUint8(6) === 1;
  const length = isFirst ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = (isFirst ? 10 : 12) + length;
  const header = new TextDecoder("latin1").decode(new Uint8Array(data, 0, start));
  if (!header.includes("'<f4'")) throw new ServiceError("Unexpected answer", "the array is not of float32");
  return new Float32Array(data.slice(start));
}

// The statuses and counts of all tokens, from the bank's file of tokens (safetensors).
export async function getTokenColumns(reference, signal = undefined) {
  const response = await request(`${bankPath(reference)}/files/tokens.safetensors`, {}, signal, "*/*");
  const data = await response.arrayBuffer();
  const length = Number(new DataView(data).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, length)));
  const part = ({ data_offsets: [from, to] }) => data.slice(8 + length + from, 8 + length + to);
  return {
    status: new Uint8Array(part(header.status)),
    counts: Float64Array.from(new BigInt64Array(part(header.counts)), Number),
  };
}
