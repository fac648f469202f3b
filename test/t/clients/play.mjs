// Both versions of an application that keeps its orders in an event store, as a program that takes a step a line from standard
// input, [step, argument...] in JSON, and answers each with a line of JSON.
//
// It knows what it has written, and so where each order stands, without reading anything.
import { createInterface } from 'node:readline';
import { isDeepStrictEqual } from 'node:util';
import { eventOf, evolve, firstEvents, initialState, stateOf } from './orders.mjs';

const orders = new Map();   // number of an order -> what was written of it: [{ version, type, data }, ...]

const idOf = number => `order-${number}`;

// Whether an order stays under version 1 for ever.
function isRefused(events) {
  try {
    stateOf(events);
    return false;
  } catch {
    return true;
  }
}

// The numbers of some orders: 'all', 'refused', 'movable' (which version 1 began and nothing refuses), 'taken' (of these,
// to which version 2 has written), 'untaken' or 'new' (which version 2 began); of those that divisor divides, or of the others.
function numbersOf(which, divisor = 1, isDivided = true) {
  const kinds = {
    all: () => true,
    refused: events => isRefused(events),
    movable: events => events[0].version === 1 && !isRefused(events),
    taken: events => kinds.movable(events) && events.some(event => event.version === 2),
    untaken: events => kinds.movable(events) && events.every(event => event.version === 1),
    new: events => events[0].version === 2,
  };

  return [...orders].filter(([number, events]) => (number % divisor === 0) === isDivided && kinds[which](events)).map(([number]) => number);
}

// Takes steps until standard input ends. The client of the store has, for a version where there is one:
//   append(version, id, expected, events)     appends behind as many events, in one transaction
//   snapshot(version, id)                     { state, position } that a migration left, or undefined; position counts events
//   read(version, id, snapshot, evolve, initialState)   { state, position } after the events behind the snapshot
//   consume(take)                             calls take(message id, stream id, type) for what came since the last time
//   folds()                                   [{ stream_id, state }], as the extension computes them
export async function play(client) {
  const taken = new Map();   // message id -> [id of its stream, type]

  // Appends, and remembers it when it went well; otherwise the SQLSTATE of the refusal.
  async function append(version, number, events) {
    const before = orders.get(number) ?? [];

    try {
      await client.append(version, idOf(number), before.length, events);
    } catch (error) {
      return error.code ?? `${error}`;
    }
    orders.set(number, [...before, ...events.map(event => ({ ...event, version }))]);
    return 'written';
  }

  const tally = (counts, what) => ({ ...counts, [what]: (counts[what] ?? 0) + 1 });

  const steps = {
    // A version begins orders.
    async start(version, first, last) {
      let counts = {};

      for (let number = first; number <= last; number++) counts = tally(counts, await append(version, number, firstEvents(version, number)));
      return counts;
    },

    // A version appends one more event to some orders, at the places that it knows.
    async goOn(version, ...which) {
      let counts = {};

      for (const number of numbersOf(...which)) {
        const event = eventOf(version, number, orders.get(number).length + 1, false);

        counts = tally(counts, await append(version, number, [event]));
      }
      return counts;
    },

    // How many events were written, and by which version.
    async count() {
      const events = [...orders.values()].flat();
      const by = events.reduce((counts, { version }) => tally(counts, version), {});

      return { events: events.length, by };
    },

    // Version 2 loads some orders; what differs from the oracle is listed.
    async load(which, hasSnapshot) {
      const different = [];
      let loaded = 0;

      for (const number of numbersOf(which)) {
        const events = orders.get(number);
        const snapshot = await client.snapshot(2, idOf(number));
        const found = await client.read(2, idOf(number), snapshot, evolve[2], initialState);
        const expected = { state: stateOf(events), position: events.length };

        loaded++;
        if (!isDeepStrictEqual(found, expected) || (snapshot !== undefined) !== hasSnapshot ||
          (hasSnapshot && snapshot.position !== events.filter(event => event.version === 1).length))
          different.push({ number, snapshot, found, expected });
      }
      return { loaded, different: different.slice(0, 2) };
    },

    // What the extension folds of all orders that are under version 2.
    async fold() {
      const folds = new Map((await client.folds()).map(({ stream_id, state }) => [stream_id, state]));
      const different = [...numbersOf('movable'), ...numbersOf('new')]
        .filter(number => !isDeepStrictEqual(folds.get(idOf(number)), stateOf(orders.get(number))));

      return { folded: folds.size, different: different.slice(0, 2).map(number => [number, folds.get(idOf(number)), stateOf(orders.get(number))]) };
    },

    // A consumer takes what has come since it stopped: how much, how much of it again, and how many orders it has never seen begin.
    async consume() {
      const begun = new Set();
      let count = 0;
      let again = 0;

      await client.consume((id, streamId, type) => {
        count++;
        if (taken.has(id)) again++;
        taken.set(id, [streamId, type]);
      });
      for (const [streamId, type] of taken.values()) if (type === 'OrderPlaced') begun.add(streamId);
      return {
        taken: count, again, total: taken.size, begun: begun.size,
        missed: [...orders.keys()].filter(number => !begun.has(idOf(number))).length,
      };
    },
  };

  for await (const line of createInterface({ input: process.stdin })) {
    const [step, ...values] = JSON.parse(line);
    let answer;

    try {
      answer = await steps[step](...values);
    } catch (error) {
      answer = { error: error.stack };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  }
  await client.close();
}

// Reads the arguments of the program: how to connect, and whether events say under which version they were written.
export function settings() {
  const [host, port, user, database, stamped] = process.argv.slice(2);

  return { host, port, user, database, isStamped: stamped === 'stamped' };
}
