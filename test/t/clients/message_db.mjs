// Orders in Message DB, whose client is its functions, with the snapshots of Eventide.
//
//   node message_db.mjs HOST PORT USER DATABASE stamped|unstamped
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { formatVersion } from './orders.mjs';
import { play, settings } from './play.mjs';

const { host, port, user, database, isStamped } = settings();

const owner = new pg.Pool({ host, port, user, database });
const poolOf = (version, options) => new pg.Pool({
  host, port, user: 'message_store', database, application_name: `version ${version}`, options: `-c search_path=message_store ${options}`,
});
const pool = { 1: poolOf(1, ''), 2: poolOf(2, isStamped ? '' : `-c mako.writer=${formatVersion[2]}`) };
let position = 1;   // up to which the consumer has not read

await play({
  // The version of a stream is the position of its last message, from 0; -1 where there is none.
  async append(version, id, expected, events) {
    const client = await pool[version].connect();

    try {
      await client.query('BEGIN');
      for (const [i, { type, data }] of events.entries())
        await client.query('SELECT write_message($1, $2, $3, $4, $5, $6)', [
          randomUUID(), id, type, JSON.stringify(data),
          isStamped ? JSON.stringify({ formatVersion: formatVersion[version] }) : null, expected + i - 1,
        ]);
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  },

  // The last message of the entity's snapshot stream is the snapshot.
  async snapshot(version, id) {
    const { rows: [row] } = await pool[version].query('SELECT * FROM get_last_stream_message($1)', [id.replace('-', ':snapshot-')]);
    const data = row && JSON.parse(row.data);

    if (row && row.type !== 'Recorded') throw new Error(`a snapshot is a ${row.type}`);
    return data && { state: data.entity_data, position: data.entity_version + 1 };
  },

  async read(version, id, snapshot, evolve, initialState) {
    const { rows } = await pool[version].query('SELECT * FROM get_stream_messages($1, $2)', [id, snapshot?.position ?? 0]);
    const state = rows.reduce((before, { type, data }) => evolve(before, { type, data: JSON.parse(data) }), snapshot?.state ?? initialState());

    return { state, position: rows.length === 0 ? snapshot?.position : Number(rows.at(-1).position) + 1 };
  },

  // A consumer of the category reads it in batches, from behind the last message that it has taken.
  async consume(take) {
    for (;;) {
      const { rows } = await pool[1].query('SELECT * FROM get_category_messages($1, $2, $3)', ['order', position, 500]);

      if (rows.length === 0) return;
      for (const { id, stream_name: streamName, type, global_position: place } of rows) {
        take(id, streamName, type);
        position = Number(place) + 1;
      }
    }
  },

  async folds() {
    return (await owner.query('SELECT s.stream_id, f.state FROM mako.stream s, mako_state(s.stream_id) f WHERE s.workflow_id = $1',
      [`order@${formatVersion[2]}`])).rows;
  },

  async close() {
    await Promise.all([owner.end(), pool[1].end(), pool[2].end()]);
  },
});
