// Both versions of an application whose orders are workflows of DBOS: version 2 looks for fraud before it prices an order.
//
//   node dbos_orders.mjs VERSION URL LOG COMMAND [ARGUMENT]
//
// Commands: "start", with orders in JSON, starts them and waits until they all wait, says so, and then waits to be killed; "recover", with
// ids in JSON, recovers what a program of this version left pending, lets these orders go on, and prints how they ended; with none, it is
// given two seconds to recover something. LOG gets a line for each step that is executed.
import { appendFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { DBOS } from '@dbos-inc/dbos-sdk';

const [version, url, log, command, argument] = process.argv.slice(2);

// Executes a step, or takes what an earlier execution recorded.
const step = (name, result) => DBOS.runStep(async () => {
  appendFileSync(log, `${version} ${DBOS.workflowID} ${name}\n`);
  return result;
}, { name });

// An order that is large waits for an answer of somebody, any other for a while. The wait for an answer takes two numbers of steps, and
// records the second one first.
async function order({ amount, patience }) {
  const stock = await step('reserveStock', { shelf: `S-${amount % 7}` });
  const fraud = version === 'FV2025-10-01' ? await step('fraudCheck', { by: 'version 2' }) : undefined;
  const { price, at } = await step('price', { price: amount * 1.19, at: new Date('2024-11-05T10:00:00Z') });
  const answer = patience === undefined ? await DBOS.recv('answer', 600) : await DBOS.sleep(patience);
  const paid = await step('charge', { charged: price });
  const parcel = await step('ship', new Map([['parcel', amount]]));

  return { shelf: stock.shelf, fraud: fraud?.by, year: at.getUTCFullYear(), answer, charged: paid.charged, parcel: parcel.get('parcel') };
}

const workflow = DBOS.registerWorkflow(order, { name: 'order' });

DBOS.setConfig({ name: 'shop', systemDatabaseUrl: url, applicationVersion: version, executorID: 'local', logLevel: 'error', runAdminServer: false });
await DBOS.launch();

if (command === 'start') {
  const orders = JSON.parse(argument);

  for (const [workflowID, input] of Object.entries(orders)) await DBOS.startWorkflow(workflow, { workflowID })(input);
  for (const workflowID of Object.keys(orders))
    while ((await DBOS.listWorkflowSteps(workflowID))?.length !== 3) await pause(20);
  console.log('waiting');
  await pause(600_000);
} else {
  const ids = JSON.parse(argument ?? '[]');
  const ends = {};

  if (ids.length === 0) await pause(2_000);
  for (const id of ids) await DBOS.send(id, 'yes', 'answer', `answer to ${id}`);
  for (const id of ids)
    ends[id] = await DBOS.retrieveWorkflow(id).getResult().catch(error => `${error.name}: ${error.message}`);
  console.log(JSON.stringify(ends));
}
await DBOS.shutdown();
