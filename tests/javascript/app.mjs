// An application on LangGraph.js: graphs that stop half-way, and go on, on either of its savers.
//
//   node app.mjs half|rest|show sqlite FILE
//   node app.mjs half|rest|show postgres DSN
//   node app.mjs rest sqlite|postgres … THREAD…      (these threads alone)
//
// `half` runs every thread up to its middle, `rest` from there to its end, `show` prints all that the
// saver and the graphs say of every thread, as one JSON text.
import { inspect } from "node:util";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import {
  Annotation, Command, END, MessagesAnnotation, Send, START, StateGraph, interrupt,
} from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { SqliteSaver } from "@langchain/langgraph-checkpoint-sqlite";

const append = () => Annotation({ reducer: (a, b) => a.concat(b), default: () => [] });
const State = Annotation.Root({ log: append(), never: append(), n: Annotation(), extra: Annotation() });

const counter = new StateGraph(State)
  .addNode("a", (s) => ({ log: [`a${s.n}`], n: s.n + 1 }))
  .addNode("b", (s) => ({ log: [`b${s.log.length}`], n: s.n * 10 }))
  .addEdge(START, "a").addEdge("a", "b").addEdge("b", END);

const asking = new StateGraph(State)
  .addNode("ask", (s) => ({ log: [`answered ${interrupt({ q: `ok, ${s.n}?` })}`] }))
  .addNode("tell", (s) => ({ log: ["told"], n: s.n + 1 }))
  .addEdge(START, "ask").addEdge("ask", "tell").addEdge("tell", END);

const fanning = new StateGraph(State)
  .addNode("fan", () => ({ log: ["fan"] }))
  .addNode("w", (s) => ({ log: [`w${s.item}`] }))
  .addNode("join", (s) => ({ log: [`join ${s.log.length}`] }))
  .addEdge(START, "fan")
  .addConditionalEdges("fan", () => [3, 1, 2].map((item) => new Send("w", { item })), ["w"])
  .addEdge("w", "join").addEdge("join", END);

const chat = new StateGraph(MessagesAnnotation)
  .addNode("reply", (s) => ({
    messages: [new AIMessage({ id: `ai-${s.messages.length}`, content: `${s.messages.length} so far` })],
  }))
  .addEdge(START, "reply").addEdge("reply", END);

// what a node does to the objects that it is given shows in checkpoints, though no version tells
const careless = new StateGraph(State)
  .addNode("one", (s) => { s.extra.push("one"); s.never.push(`never ${s.n}`); return { n: s.n + 1 }; })
  .addNode("two", (s) => { s.extra.push("two"); s.never.push(`nor ${s.n}`); return { n: s.n + 1 }; })
  .addNode("three", (s) => ({ log: [s.extra.join()], n: s.n + s.never.length }))
  .addEdge(START, "one").addEdge("one", "two").addEdge("two", "three").addEdge("three", END);

const inner = new StateGraph(State)
  .addNode("i1", () => ({ log: ["i1"] }))
  .addNode("i2", () => ({ log: [`i2 ${interrupt("inside?")}`] }))
  .addEdge(START, "i1").addEdge("i1", "i2").addEdge("i2", END);
const nested = new StateGraph(State)
  .addNode("sub", inner.compile())
  .addNode("after", (s) => ({ log: ["after"], n: s.log.length }))
  .addEdge(START, "sub").addEdge("sub", "after").addEdge("after", END);

const odd = () => ({
  nothing: undefined, map: new Map([["k", { deep: [1] }]]), set: new Set(["x", 2]),
  bytes: new Uint8Array([0, 255]), pattern: /a+/gi, nul: "a\0b", half: "a\ud800b", huge: 1e21, none: null,
  text: "naïve 日本 \u2028", list: [undefined, [true, false]], message: new HumanMessage({ id: "h", content: "hi" }),
});

const GRAPHS = { counter, asking, fanning, chat, careless, nested };
// each thread with its graph, what runs before the move, and what after
const THREADS = {
  "plain": ["counter",
    async (g, at) => { await g.invoke({ n: 1, log: ["in"] }, at); },
    async (g, at) => { for (const n of [2, 3, 4, 5]) await g.invoke({ n, log: ["again"] }, at); }],
  "odd values": ["counter",
    async (g, at) => { await g.invoke({ n: 1, extra: odd() }, at); },
    async (g, at) => { await g.invoke({ n: 2 }, at); await g.invoke({ n: 3, extra: undefined }, at); }],
  "undefined": ["counter",
    async (g, at) => { await g.invoke({ n: 1, extra: undefined }, at); },
    async (g, at) => { await g.invoke({ n: 2 }, at); }],
  "true": ["counter",
    async (g, at) => { await g.invoke({ n: 1, extra: true }, at); },
    async (g, at) => { await g.invoke({ n: 2 }, at); }],
  "asked": ["asking",
    async (g, at) => { await g.invoke({ n: 1 }, at); },
    async (g, at) => { await g.invoke(new Command({ resume: "yes" }), at); }],
  "sends": ["fanning",
    async (g, at) => { await g.invoke({ n: 1 }, { ...at, interruptBefore: ["w"] }); },
    async (g, at) => { await g.invoke(null, at); await g.invoke({ n: 2 }, at); }],
  "messages": ["chat",
    async (g, at) => { await g.invoke({ messages: [new HumanMessage({ id: "h1", content: "hello" })] }, at); },
    async (g, at) => {
      await g.invoke({ messages: [new HumanMessage({ id: "h2", content: "and?" })] }, at);
      await g.invoke({ messages: [new HumanMessage({ id: "h1", content: "changed" })] }, at);
    }],
  "forked": ["counter",
    async (g, at) => {
      await g.invoke({ n: 1, log: ["in"] }, at);
      const history = [];
      for await (const state of g.getStateHistory(at)) history.push(state);
      const early = history.find((s) => s.next.includes("a"));
      for (const n of [50, 60]) { // two forks of one checkpoint: every version is there three times
        const fork = await g.updateState(early.config, { n, log: [`fork ${n}`] });
        await g.invoke(null, fork);
      }
    },
    async (g, at) => { for (const n of [2, 3, 4, 5]) await g.invoke({ n, log: ["again"] }, at); }],
  "careless": ["careless",
    async (g, at) => { await g.invoke({ n: 1, extra: ["in"] }, { ...at, interruptBefore: ["two"] }); },
    async (g, at) => { await g.invoke(null, at); await g.invoke({ n: 7 }, at); }],
  "nested": ["nested",
    async (g, at) => { await g.invoke({ n: 1 }, at); },
    async (g, at) => { await g.invoke(new Command({ resume: "yes" }), at); }],
  "updated alone": ["counter",
    async (g, at) => { await g.updateState(at, { n: 5, log: ["by hand"] }, "a"); },
    async (g, at) => { await g.invoke(null, at); }],
};

const plain = (value) => inspect(value, { depth: null, maxArrayLength: null, maxStringLength: null, sorted: true, compact: true, breakLength: Infinity });

async function threadsOf(saver) {
  const sql = "SELECT DISTINCT thread_id FROM";
  if (saver instanceof SqliteSaver) return saver.db.prepare(`${sql} checkpoints`).all().map((r) => r.thread_id).sort();
  const { rows } = await saver.pool.query(`${sql} "${saver.options.schema}".checkpoints`);
  return rows.map((r) => r.thread_id).sort();
}

async function tuplesOf(saver, thread_id) {
  const found = [];
  for await (const t of saver.list({ configurable: { thread_id } })) {
    const { checkpoint_ns, checkpoint_id } = t.config.configurable;
    const { channel_values, channel_versions, versions_seen, ...envelope } = t.checkpoint;
    const by_id = await saver.getTuple(t.config);
    found.push({
      checkpoint_ns, checkpoint_id, parent: t.parentConfig?.configurable?.checkpoint_id ?? null,
      envelope, versions: channel_versions, seen: versions_seen,
      values: Object.fromEntries(Object.entries(channel_values).map(([k, v]) => [k, plain(v)])),
      metadata: plain(t.metadata), writes: t.pendingWrites.map(plain),
      same_by_id: plain(by_id.checkpoint) === plain(t.checkpoint) && plain(by_id.pendingWrites) === plain(t.pendingWrites),
    });
  }
  return found;
}

async function statesOf(graph, thread_id) {
  const found = [];
  for await (const s of graph.getStateHistory({ configurable: { thread_id } })) {
    found.push({
      values: plain(s.values), next: s.next, source: s.metadata?.source, step: s.metadata?.step,
      tasks: s.tasks.map((t) => [t.name, plain(t.interrupts.map((i) => i.value)), plain(t.error)]),
    });
  }
  return found;
}

const [what, kind, where, ...only] = process.argv.slice(2);
const saver = kind === "sqlite" ? SqliteSaver.fromConnString(where) : PostgresSaver.fromConnString(where);
await saver.setup();
const compiled = Object.fromEntries(Object.entries(GRAPHS).map(([k, g]) => [k, g.compile({ checkpointer: saver })]));
if (what === "show") {
  const shown = {};
  for (const thread_id of await threadsOf(saver)) {
    const graph = compiled[THREADS[thread_id]?.[0]];
    shown[thread_id] = {
      tuples: await tuplesOf(saver, thread_id), states: graph ? await statesOf(graph, thread_id) : [],
    };
  }
  console.log(JSON.stringify(shown));
} else {
  for (const [thread_id, [graph, half, rest]] of Object.entries(THREADS)) {
    if (only.length && !only.includes(thread_id)) continue;
    await (what === "half" ? half : rest)(compiled[graph], { configurable: { thread_id } });
  }
}
await saver.end?.();
