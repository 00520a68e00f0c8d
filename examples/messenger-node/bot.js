"use strict";
/*
 * A Facebook Messenger webhook bot. Node 18 or newer, standard library only.
 *
 * Settings come from the environment:
 *
 *     VERIFY_TOKEN        what the page's webhook set-up sends back to prove that it is yours
 *     APP_SECRET          signs every event that Facebook delivers
 *     PAGE_ACCESS_TOKEN   allows the replies
 *     PORT                where to listen, on 127.0.0.1 (a TLS proxy or tunnel stands in front)
 *     BOT_DATA            the folder of state.json
 *     BOT_ID              the name in /health (default: messenger)
 *     PREFIX              what a command starts with (default: !)
 *     GRAPH_API_BASE      default https://graph.facebook.com      GRAPH_API_VERSION   default v21.0
 *
 * An event is answered with 200 at once, as Facebook demands, and handled afterwards, in order for each sender.
 * When too many wait, it is answered with 503 instead, and Facebook delivers it again later. Every event is
 * handled at most once: its id is remembered over restarts, before the reply leaves.
 *
 * Exit status: 0 after SIGTERM with every reply sent, 1 when some had to be abandoned or the port is taken,
 * 78 when a setting is missing or wrong.
 */

const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { setTimeout: sleep } = require("node:timers/promises");

const EX_CONFIG = 78;
const BODY_LIMIT = 1 << 20;
const CLIENT_TIMEOUT_MS = 5000;
const WAITING_LIMIT = 1000;
const SEND_ATTEMPTS = 4;
const SEND_TIMEOUT_MS = 10000;
const BACKOFF_MS = 200;
const DRAIN_MS = 8000; // below the supervisor's usual ten seconds of grace
const TEXT_LIMIT = 2000; // of the Send API, in characters
const ID_LIMIT = 256;
const SEEN_LIMIT = 1000;
const SENDER_LIMIT = 5000;

/** One line of JSON per event. Never a token, never what somebody wrote. */
function log(event, fields = {}) {
  process.stdout.write(JSON.stringify({ at: new Date().toISOString(), event, ...fields }) + "\n");
}

// -- settings -------------------------------------------------------------------------------------------------

/** The message names every setting that is missing or wrong, and no value. */
class BadSettings extends Error {}

function readSettings(env) {
  const required = ["VERIFY_TOKEN", "APP_SECRET", "PAGE_ACCESS_TOKEN", "PORT", "BOT_DATA"];
  // A secret read from a file usually ends in a newline that is not part of it.
  const values = Object.fromEntries(required.map((name) => [name, (env[name] || "").trim()]));
  const missing = required.filter((name) => !values[name]);
  if (missing.length) throw new BadSettings(`missing in the environment: ${missing.join(", ")}`);
  const port = /^[0-9]{1,5}$/.test(values.PORT) ? Number(values.PORT) : 0;
  if (port < 1 || port > 65535) throw new BadSettings("PORT must be a number from 1 to 65535");
  const base = (env.GRAPH_API_BASE || "https://graph.facebook.com").replace(/\/+$/, "");
  if (!/^https?:\/\/(\[[0-9a-f:]+\]|[\w.-]+)(:[0-9]{1,5})?(\/[\w./-]*)?$/.test(base)) {
    throw new BadSettings("GRAPH_API_BASE must be an http:// or https:// address");
  }
  if (!fs.statSync(values.BOT_DATA, { throwIfNoEntry: false })?.isDirectory()) {
    throw new BadSettings("BOT_DATA must be a folder that exists");
  }
  return {
    verifyToken: values.VERIFY_TOKEN,
    appSecret: values.APP_SECRET,
    pageAccessToken: values.PAGE_ACCESS_TOKEN,
    port,
    data: values.BOT_DATA,
    botId: env.BOT_ID || "messenger",
    prefix: env.PREFIX || "!",
    graphApiBase: base,
    graphApiVersion: env.GRAPH_API_VERSION || "v21.0",
  };
}

// -- state ----------------------------------------------------------------------------------------------------

/** Drops the oldest of a Map or Set (both keep the order of insertion) until `limit` are left. */
function trim(collection, limit) {
  for (const oldest of collection.keys()) {
    if (collection.size <= limit) return;
    collection.delete(oldest);
  }
}

/**
 * What survives a restart: per sender a count and a remembered text, and the ids of the last events.
 * One JSON file is right for one page's worth of senders; beyond some thousands, use SQLite.
 */
class State {
  constructor(folder) {
    this.path = path.join(folder, "state.json");
    this.messages = 0;
    this.senders = new Map(); // a plain object would take a sender called __proto__ for something else
    this.seen = new Set();
    let text;
    try {
      text = fs.readFileSync(this.path, "utf8");
    } catch (error) {
      if (error.code === "ENOENT") return; // the first life
      throw error;
    }
    try {
      this.load(JSON.parse(text));
    } catch {
      // Crashing for ever over a damaged file helps nobody; deleting it might lose something.
      fs.renameSync(this.path, this.path + ".damaged");
      log("state_damaged", { kept_as: this.path + ".damaged" });
    }
  }

  load(stored) {
    const messages = wholeNumber(stored.messages);
    const senders = new Map();
    for (const [sender, known] of Object.entries(stored.senders)) {
      senders.set(sender, { count: wholeNumber(known.count), memory: String(known.memory) });
    }
    const seen = new Set(stored.seen.map(String));
    Object.assign(this, { messages, senders, seen });
  }

  /** True once for each id: Facebook delivers again whatever it is not sure about. */
  firstTime(id) {
    if (this.seen.has(id)) return false;
    this.seen.add(id);
    trim(this.seen, SEEN_LIMIT);
    return true;
  }

  /** This event was turned away: its next delivery is the first. */
  forget(id) {
    this.seen.delete(id);
  }

  /** One message more; returns how many this sender has written. */
  count(sender) {
    this.messages += 1;
    const known = this.senders.get(sender) || { count: 0, memory: "" };
    known.count += 1;
    this.senders.delete(sender);
    this.senders.set(sender, known); // last again: the first is whoever was silent longest
    trim(this.senders, SENDER_LIMIT);
    return known.count;
  }

  remember(sender, text) {
    this.senders.get(sender).memory = text;
  }

  recall(sender) {
    return this.senders.get(sender).memory;
  }

  /** Atomic and durable: after any crash the file is the old state or the new one. */
  save() {
    const stored = { messages: this.messages, senders: Object.fromEntries(this.senders), seen: [...this.seen] };
    const temporary = this.path + ".new";
    const file = fs.openSync(temporary, "w", 0o600);
    try {
      fs.writeFileSync(file, JSON.stringify(stored));
      fs.fsyncSync(file);
    } finally {
      fs.closeSync(file);
    }
    fs.renameSync(temporary, this.path);
  }
}

function wholeNumber(value) {
  if (!Number.isSafeInteger(value)) throw new TypeError("not a whole number");
  return value;
}

// -- what was said, and the answer ----------------------------------------------------------------------------

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isId = (value) => typeof value === "string" && value.length > 0 && value.length <= ID_LIMIT;

/** By characters, not UTF-16 halves: an emoji is never cut in two. */
const clip = (text) => (text.length <= TEXT_LIMIT ? text : Array.from(text).slice(0, TEXT_LIMIT).join(""));

/** Each messaging event of a delivery: {kind, id, sender, text} to answer, or the name of what is left alone. */
function* readEvents(payload) {
  for (const entry of payload.entry) {
    for (const event of Array.isArray(entry?.messaging) ? entry.messaging : []) yield readEvent(event);
  }
}

function readEvent(event) {
  if (!isObject(event)) return "malformed";
  const kind = ["message", "postback"].find((name) => isObject(event[name]));
  if (!kind) return ["delivery", "read", "reaction", "optin"].find((name) => name in event) || "unknown";
  const content = event[kind];
  if (content.is_echo) return "echo";
  const sender = event.sender?.id;
  const text = kind === "message" ? content.text : content.payload;
  const id = content.mid || `${sender} ${event.timestamp} ${kind}`;
  if (!isId(sender) || !isId(id)) return "malformed";
  return { kind, id, sender, text: typeof text === "string" ? text : null };
}

/** [command, reply] for one incoming event; counts it and remembers what it asks to remember. */
function compose({ kind, sender, text }, prefix, state) {
  const count = state.count(sender);
  if (text === null) return ["none", "I can only read text."];
  if (kind === "postback" && text === "GET_STARTED") return ["help", helpText(prefix)];
  if (text.startsWith(prefix)) {
    const [, command, rest] = /^(\S*)\s*([^]*)$/.exec(text.slice(prefix.length).trim());
    switch (command.toLowerCase()) {
      case "ping":
        return ["ping", "pong"];
      case "help":
        return ["help", helpText(prefix)];
      case "count":
        return ["count", `You have sent me ${count} message${count === 1 ? "" : "s"}.`];
      case "remember":
        if (!rest) return ["remember", `Tell me what: ${prefix}remember TEXT`];
        state.remember(sender, clip(rest));
        return ["remember", "I will remember that."];
      case "recall":
        return ["recall", state.recall(sender) || "You have not asked me to remember anything."];
    }
  }
  if (kind === "postback") return ["postback", clip(`You chose ${text}.`)];
  return ["echo", clip(text) || "You said nothing."];
}

function helpText(prefix) {
  const names = ["ping", "help", "count", "remember TEXT", "recall"];
  return `I know ${names.map((name) => prefix + name).join(", ")}. Anything else I say back.`;
}

// -- the Send API ---------------------------------------------------------------------------------------------

/** POST {base}/{version}/me/messages, again with growing pauses when the other side is in trouble. */
class SendApi {
  constructor({ graphApiBase, graphApiVersion, pageAccessToken }) {
    const token = encodeURIComponent(pageAccessToken);
    this.url = new URL(`${graphApiBase}/${graphApiVersion}/me/messages?access_token=${token}`);
    // Loaded only where it is needed: TLS doubles what a small bot weighs.
    this.request = (this.url.protocol === "https:" ? require("node:https") : http).request;
  }

  /** {reply, attempts} and, when it failed, {error} in words that are safe to log. Never throws. */
  async send(recipient, text) {
    const body = { recipient: { id: recipient }, messaging_type: "RESPONSE", message: { text } };
    const data = Buffer.from(JSON.stringify(body));
    for (let attempts = 1; ; attempts += 1) {
      const failure = await this.post(data);
      if (!failure) return { reply: "sent", attempts };
      if (attempts === SEND_ATTEMPTS || !failure.worthAnother) {
        return { reply: "failed", attempts, error: failure.why };
      }
      await sleep(BACKOFF_MS * 2 ** (attempts - 1) * (0.75 + Math.random() / 2));
    }
  }

  /** Resolves to null, or to why it failed and whether another attempt may help. */
  post(data) {
    return new Promise((resolve) => {
      const headers = { "Content-Type": "application/json", "Content-Length": data.length };
      const options = { method: "POST", headers, agent: false, signal: AbortSignal.timeout(SEND_TIMEOUT_MS) };
      const request = this.request(this.url, options, async (response) => {
        try {
          const answer = await readBody(response);
          const status = response.statusCode;
          if (status === 200) return resolve(null);
          const why = `HTTP ${status}${graphErrorCode(answer)}`;
          resolve({ why, worthAnother: status >= 500 || status === 429 });
        } catch (error) {
          resolve({ why: error.code || error.name, worthAnother: true });
        }
      });
      // The code only: a message could quote the address, and the address holds the token.
      request.on("error", (error) => resolve({ why: error.code || error.name, worthAnother: true }));
      request.end(data);
    });
  }
}

function graphErrorCode(answer) {
  try {
    const { code } = JSON.parse(answer).error;
    return Number.isInteger(code) ? `, code ${code}` : "";
  } catch {
    return "";
  }
}

/** The raw bytes of a message; null when there are more than BODY_LIMIT. */
async function readBody(message) {
  const pieces = [];
  let size = 0;
  for await (const piece of message) {
    size += piece.length;
    if (size > BODY_LIMIT) return null;
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

// -- the bot --------------------------------------------------------------------------------------------------

/** Takes events in and answers them; each sender has a chain of promises, so order holds. */
class Bot {
  constructor(settings) {
    this.settings = settings;
    this.state = new State(settings.data);
    this.started = process.uptime();
    this.api = new SendApi(settings);
    this.waiting = 0;
    this.chains = new Map(); // sender -> the end of what is being done for it
  }

  /** Begin every event of a delivery; false, with nothing begun, when too many wait already. */
  take(payload) {
    const fresh = [];
    for (const event of readEvents(payload)) {
      if (typeof event === "string") log("ignored", { kind: event });
      else if (this.state.firstTime(event.id)) fresh.push(event);
      else log("duplicate", { sender: event.sender, mid: event.id });
    }
    if (this.waiting + fresh.length > WAITING_LIMIT) {
      for (const event of fresh) this.state.forget(event.id);
      log("overloaded", { turned_away: fresh.length });
      return false;
    }
    for (const event of fresh) this.begin(event);
    return true;
  }

  begin(event) {
    this.waiting += 1;
    const before = this.chains.get(event.sender) || Promise.resolve();
    const chain = before
      .then(() => this.handle(event))
      .catch((error) => log("error", { error: error.name }))
      .finally(() => {
        this.waiting -= 1;
        if (this.chains.get(event.sender) === chain) this.chains.delete(event.sender);
      });
    this.chains.set(event.sender, chain);
  }

  /** Resolves when everything that was taken is answered. */
  async finish() {
    while (this.chains.size) await Promise.all(this.chains.values());
  }

  async handle(incoming) {
    const started = performance.now();
    const [command, reply] = compose(incoming, this.settings.prefix, this.state);
    try {
      this.state.save();
    } catch (error) {
      log("state_not_saved", { error: error.code }); // a full disk is no reason to fall silent
    }
    const outcome = await this.api.send(incoming.sender, reply);
    const { kind, sender, id: mid } = incoming;
    log(kind, { sender, mid, command, ...outcome, ms: Math.round(performance.now() - started) });
  }
}

// -- the webhook ----------------------------------------------------------------------------------------------

function answer(response, status, text, type = "text/plain; charset=utf-8") {
  const headers = {
    "Content-Type": type,
    "Content-Length": Buffer.byteLength(text),
    "X-Content-Type-Options": "nosniff", // the challenge is anybody's text
    Connection: "close",
  };
  response.writeHead(status, headers).end(text);
}

/** In a time that does not tell how much was right. */
function sameText(expected, given) {
  const [left, right] = [Buffer.from(expected), Buffer.from(given)];
  return left.length === right.length && crypto.timingSafeEqual(left, right);
}

async function handleRequest(bot, request, response) {
  const url = new URL(request.url, "http://bot");
  if (request.method === "GET" && url.pathname === "/health") return health(bot, response);
  if (request.method === "GET" && url.pathname === "/webhook") return verify(bot, url.searchParams, response);
  if (request.method === "POST" && url.pathname === "/webhook") return receive(bot, request, response);
  const known = request.method === "GET" || request.method === "POST";
  return answer(response, known ? 404 : 501, known ? "not found" : "unsupported method");
}

function health(bot, response) {
  const report = {
    status: "ok",
    bot: bot.settings.botId,
    uptime_s: Math.round((process.uptime() - bot.started) * 1000) / 1000,
    messages: bot.state.messages,
  };
  answer(response, 200, JSON.stringify(report), "application/json");
}

function verify(bot, asked, response) {
  const tokenRight = sameText(bot.settings.verifyToken, asked.get("hub.verify_token") || "");
  if (asked.get("hub.mode") !== "subscribe" || !tokenRight) {
    log("refused", { why: "verify token" });
    return answer(response, 403, "wrong verify token");
  }
  const challenge = asked.get("hub.challenge");
  if (!challenge) return answer(response, 400, "no hub.challenge");
  log("verified");
  return answer(response, 200, challenge);
}

async function receive(bot, request, response) {
  const length = request.headers["content-length"];
  if (length === undefined) return answer(response, 411, "a Content-Length is needed");
  if (Number(length) > BODY_LIMIT) {
    request.resume(); // closing on unread input resets the connection, and the answer may be lost with it
    return answer(response, 413, "too large");
  }
  const body = await readBody(request);
  if (!signed(bot, body, request.headers["x-hub-signature-256"])) {
    log("refused", { why: "signature" });
    return answer(response, 403, "wrong or missing signature");
  }
  let payload;
  try {
    payload = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch {
    return answer(response, 400, "not JSON");
  }
  if (!isObject(payload) || payload.object !== "page") return answer(response, 404, "not a page event");
  if (!Array.isArray(payload.entry)) return answer(response, 400, "no entry list");
  if (!bot.take(payload)) return answer(response, 503, "busy");
  return answer(response, 200, "EVENT_RECEIVED");
}

/** Over the raw bytes: parsing first would let unsigned input near the parser and change the bytes. */
function signed(bot, body, given) {
  const expected = crypto.createHmac("sha256", bot.settings.appSecret).update(body).digest("hex");
  return sameText(`sha256=${expected}`, typeof given === "string" ? given : "");
}

function createServer(bot) {
  const limits = { headersTimeout: CLIENT_TIMEOUT_MS, requestTimeout: 2 * CLIENT_TIMEOUT_MS };
  const options = { ...limits, connectionsCheckingInterval: CLIENT_TIMEOUT_MS };
  return http.createServer(options, (request, response) => {
    handleRequest(bot, request, response).catch((error) => {
      // A client that hung up is its own affair; anything else is worth a line, without values.
      if (error.code !== "ECONNRESET") log("error", { error: error.name });
      if (!response.headersSent) answer(response, 400, "bad request");
    });
  });
}

function main() {
  let settings;
  try {
    settings = readSettings(process.env);
  } catch (error) {
    if (!(error instanceof BadSettings)) throw error;
    process.stderr.write(`messenger-bot: ${error.message}\n`);
    process.exitCode = EX_CONFIG;
    return;
  }
  const bot = new Bot(settings);
  const server = createServer(bot);
  server.on("error", (error) => {
    process.stderr.write(`messenger-bot: cannot listen on 127.0.0.1:${settings.port}: ${error.code}\n`);
    process.exitCode = 1;
  });
  let stopping = false;
  const stop = async (signal) => {
    if (stopping) return;
    stopping = true;
    log("stopping", { signal, waiting: bot.waiting });
    setTimeout(() => {
      log("abandoned", { waiting: bot.waiting });
      process.exit(1);
    }, DRAIN_MS).unref();
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeIdleConnections();
    });
    await bot.finish();
    log("stopped");
    process.exitCode = 0; // and the loop, with nothing left to wait for, ends by itself
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  server.listen(settings.port, "127.0.0.1", () => {
    log("started", { bot: settings.botId, port: settings.port, pid: process.pid });
  });
}

main();
