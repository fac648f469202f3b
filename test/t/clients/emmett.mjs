// Orders in Emmett's event store for PostgreSQL, with its own client.
//
//   node emmett.mjs HOST PORT USER DATABASE stamped|unstamped
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';
import pg from 'pg';
import { formatVersion } from './orders.mjs';
import { play, settings } from './play.mjs';

const { host, port, user, database, isStamped } = settings();

// The client takes its connection as a URL.
function urlOf(role, options) {
  const url = new URL(`postgresql:///${database}`);

  url.search = new URLSearchParams({ host, port, user: role, ...options });
  return url.toString();
}

// The owner makes the tables, the programs may only read and write.
const owner = new pg.Pool({ connectionString: urlOf(user) });
const maker = getPostgreSQLEventStore(urlOf(user));

await maker.schema.migrate();
await maker.close();
await owner.query(`
  CREATE TABLE order_snapshot (stream_id text PRIMARY KEY, position bigint NOT NULL, state jsonb NOT NULL);
  GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop;
  GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO shop`);

const url = {
  1: urlOf('shop', { application_name: 'version 1' }),
  2: urlOf('shop', { application_name: 'version 2', ...(isStamped ? {} : { options: `-c mako.writer=${formatVersion[2]}` }) }),
};
const store = Object.fromEntries(Object.entries(url).map(([version, it]) =>
  [version, getPostgreSQLEventStore(it, { schema: { autoMigration: 'None' } })]));
const snapshots = new pg.Pool({ connectionString: url[2] });

await play({
  async append(version, id, expected, events) {
    await store[version].appendToStream(id,
      events.map(event => isStamped ? { ...event, metadata: { formatVersion: formatVersion[version] } } : event),
      { expectedStreamVersion: BigInt(expected) });
  },

  async snapshot(version, id) {
    const { rows: [row] } = await snapshots.query('SELECT position, state FROM order_snapshot WHERE stream_id = $1', [id]);

    return row && { state: row.state, position: Number(row.position) };
  },

  async read(version, id, snapshot, evolveState, initialState) {
    const { state, currentStreamVersion } = await store[version].aggregateStream(id, {
      evolve: evolveState,
      initialState: () => snapshot?.state ?? initialState(),
      read: snapshot && { from: BigInt(snapshot.position) + 1n },
    });

    // Where nothing came after the snapshot, the client has read nothing and says 0.
    return { state, position: Number(currentStreamVersion) || snapshot?.position };
  },

  // The client's own consumer, which keeps its place in the store, until nothing is left.
  async consume(take) {
    const consumer = getPostgreSQLEventStore(url[1], { schema: { autoMigration: 'None' } })
      .consumer({ stopWhen: { noMessagesLeft: true }, pulling: { batchSize: 5000 } });

    consumer.reactor({
      processorId: 'orders',
      eachMessage: ({ type, metadata }) => {
        take(metadata.messageId, metadata.streamName, type);
      },
    });
    await consumer.start();
    await consumer.close();
  },

  async folds() {
    return (await owner.query('SELECT s.stream_id, f.state FROM mako.stream s, mako_state(s.stream_id) f WHERE s.workflow_id = $1',
      [`order@${formatVersion[2]}`])).rows;
  },

  async close() {
    await Promise.all([owner.end(), snapshots.end(), store[1].close(), store[2].close()]);
  },
});
