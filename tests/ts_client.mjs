// The official client in TypeScript, version 1, through what tests.full can do; one line of JSON for each step.
//
// node ts_client.mjs http|sse|ws URL [PREFIX]
// node ts_client.mjs stdio '["COMMAND", "ARGUMENT", …]' [PREFIX]
//
// It compares nothing: tests/test_ts_client.py does. A step that fails says so in its line, and the next one is taken.

import { createRequire } from "node:module";

// npm has installed the SDK beside this Node; `import` would look beside this file.
const load = createRequire(process.execPath);
const SDK = "@modelcontextprotocol/sdk";
const { Client } = load(`${SDK}/client/index.js`);
const types = load(`${SDK}/types.js`);

const STEP_MS = 10_000;
const KEY = "typescript";
const [kind, target, prefix = ""] = process.argv.slice(2);

function transportOf(kind, target) {
  switch (kind) {
    case "http": {
      const { StreamableHTTPClientTransport } = load(`${SDK}/client/streamableHttp.js`);
      return new StreamableHTTPClientTransport(new URL(target));
    }
    case "sse": {
      const { SSEClientTransport } = load(`${SDK}/client/sse.js`);
      return new SSEClientTransport(new URL(target));
    }
    case "ws": {
      const { WebSocketClientTransport } = load(`${SDK}/client/websocket.js`);
      return new WebSocketClientTransport(new URL(target));
    }
    case "stdio": {
      const { StdioClientTransport } = load(`${SDK}/client/stdio.js`);
      const [command, ...args] = JSON.parse(target);
      return new StdioClientTransport({ command, args, env: process.env });
    }
    default:
      throw new Error(`no such transport: ${kind}`);
  }
}

const transport = transportOf(kind, target);
const client = new Client(
  { name: "outside-ts", version: "1" },
  { capabilities: { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} } },
);
// Notifications and results as they arrive, before the SDK sees them, and who waits for one.
const heard = [];
let waiting = () => {};
const errors = [];

client.onerror = (error) => errors.push(String(error));
client.fallbackNotificationHandler = async () => {};
client.setRequestHandler(types.ElicitRequestSchema, async ({ params }) =>
  params.mode === "url"
    ? { action: "accept" }
    : { action: "accept", content: { name: `Ada <${params.message}>` } },
);
client.setRequestHandler(types.CreateMessageRequestSchema, async ({ params }) => {
  const { text } = [params.messages[0].content].flat()[0];
  return { role: "assistant", model: KEY, content: { type: "text", text: text.toUpperCase() } };
});
client.setRequestHandler(types.ListRootsRequestSchema, async () => ({ roots: [{ uri: "file:///ada", name: "ada" }] }));

const call = (name, args = {}, options = {}) =>
  client.callTool({ name: prefix + name, arguments: args }, undefined, options);
const said = async (name, args, options) => (await call(name, args, options)).content[0].text;
const told = (method) => heard.filter((message) => message.method === method).map((message) => message.params);

// Resolves when `method` has been heard `count` times.
async function hear(method, count = 1) {
  while (told(method).length < count) await new Promise((resolve) => (waiting = resolve));
  return told(method);
}

async function codeOf(attempt) {
  try {
    return { answered: await attempt };
  } catch (error) {
    return error.code;
  }
}

async function every(list, key) {
  const found = [];
  let cursor;
  do {
    const page = await list({ cursor });
    found.push(...page[key]);
    cursor = page.nextCursor;
  } while (cursor !== undefined && found.length < 100);
  return found;
}

const resources = () => every((page) => client.listResources(page), "resources");

const STEPS = {
  initialize: async () => {
    await client.connect(transport);
    const { onmessage } = transport;
    transport.onmessage = (message, extra) => {
      heard.push(message);
      onmessage(message, extra);
      waiting();
    };
    return { capabilities: Object.keys(client.getServerCapabilities()).sort() };
  },
  ping: () => client.ping(),
  tools: async () => (await every((page) => client.listTools(page), "tools")).map((tool) => tool.name),
  add: async () => {
    const { structuredContent, _meta } = await call("add", { a: 2, b: 3 });
    return { structuredContent, own: _meta["example.com/own"] };
  },
  show: async () => (await call("show")).content,
  fail: async () => {
    const { isError, content } = await call("fail");
    return { isError, text: content[0].text };
  },
  parallel: () => Promise.all([...Array(20).keys()].map((number) => said("echo", { value: `v${number}`, seconds: 0 }))),
  progress: async () => {
    const reported = [];
    // The result comes a while after it: this SDK forgets who waits for progress when both come in one read.
    const text = await said("echo", { value: "v", seconds: 0.1 }, { onprogress: (step) => reported.push(step) });
    return { text, reported };
  },
  steps: async () => {
    const before = heard.length;
    const text = await said("steps", { count: 3, key: KEY }, { onprogress: () => {} });
    const own = heard.slice(before).filter(({ method, result }) => result || method === "notifications/progress");
    const order = own.map(({ params, result }) => (result ? "result" : params.message));
    return { text, order };
  },
  ask: () => said("ask", { question: "Who?" }),
  visit: () => said("visit", { key: KEY }),
  sample: () => said("sample", { prompt: "say it" }),
  roots: () => said("roots"),
  interview: () => said("interview", { key: KEY }),
  cancel: async () => {
    // Others may be at the same server.
    const key = `${KEY}-${process.pid}`;
    const before = await said("cancelled", { key });
    const abort = new AbortController();
    // Given up when it has begun.
    const options = { signal: abort.signal, onprogress: () => abort.abort("enough") };
    let outcome;
    try {
      outcome = await said("wait", { key }, options);
    } catch (error) {
      outcome = String(error);
    }
    let after = before;
    while (after === before) after = await said("cancelled", { key });
    return { outcome, count: Number(after) - Number(before) };
  },
  resources: async () => (await resources()).map((resource) => resource.name),
  templates: async () => (await client.listResourceTemplates()).resourceTemplates.map((template) => template.name),
  read: async () => {
    const last = (await resources()).find((resource) => resource.name === "last");
    const { contents } = await client.readResource({ uri: last.uri });
    return contents.map(({ text, blob }) => text ?? blob);
  },
  // The code of an error.
  missing: () => codeOf(client.readResource({ uri: "full://nowhere" })),
  subscribe: async () => {
    const first = (await resources()).find((resource) => resource.name === "first");
    await client.subscribeResource({ uri: first.uri });
    await said("touch", { uri: "full://first" });
    const [{ uri }] = await hear("notifications/resources/updated");
    await client.unsubscribeResource({ uri: first.uri });
    return uri === first.uri;
  },
  changed: async () => {
    for (const kind of ["tools", "prompts", "resources"]) {
      await said("change", { kind });
      await hear(`notifications/${kind}/list_changed`);
    }
    return "heard";
  },
  prompts: async () => (await client.listPrompts()).prompts.map((prompt) => prompt.name),
  prompt: async () => {
    const { messages } = await client.getPrompt({ name: `${prefix}review`, arguments: { language: "perl" } });
    return messages.map((message) => message.content.text);
  },
  personal: async () => (await client.getPrompt({ name: `${prefix}personal` })).messages[0].content.text,
  complete: async () => {
    const ref = { type: "ref/prompt", name: `${prefix}review` };
    return (await client.complete({ ref, argument: { name: "language", value: "py" } })).completion.values;
  },
  log: async () => {
    await client.setLoggingLevel("error");
    await said("talk", { key: KEY });
    return (await hear("notifications/message", 4)).map((message) => message.level);
  },
  close: async () => {
    if (kind === "http") await transport.terminateSession();
    await client.close();
    // See `progress`: it complains of what it has forgotten itself. That the order is right is shown by `steps`.
    return errors.filter((error) => !error.includes("progress notification for an unknown token"));
  },
};

for (const [step, take] of Object.entries(STEPS)) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${STEP_MS} ms`)), STEP_MS);
  });
  const line = { step };
  try {
    line.found = await Promise.race([take(), late]);
  } catch (error) {
    line.error = String(error?.stack ?? error);
  }
  clearTimeout(timer);
  console.log(JSON.stringify(line));
  // Without a connection there is no next step.
  if (step === "initialize" && line.error) process.exit(1);
}
