// What ajv says of pairs of a type definition and a value: one line of JSON each, [definition, value], from standard input.
//
//   node ajv.js FOLDER <pairs      FOLDER holds node_modules/ajv
//
// Prints "true" or "false" a line, or why ajv refused the definition.
'use strict';

const path = require('path');
const Ajv = require(path.join(process.argv[2], 'node_modules/ajv/dist/jtd')).default;
const lines = require('fs').readFileSync(0, 'utf8').split('\n').slice(0, -1);
let ajv;
let made = 0;
let last = {};

// The function that checks against a definition. It is slow to make, and the same definition often comes several times in a row.
function checker(definition) {
  const text = JSON.stringify(definition);

  if (last.text === text) return last;
  last = { text };
  // ajv is slow to make, too, but never forgets a definition. Strict, it would refuse metadata that it does not know; and optimizing
  // a check takes longer than all that it saves here.
  if (made++ % 100 === 0) ajv = new Ajv({ strict: false, logger: false, inlineRefs: false, code: { optimize: false } });
  try {
    last.check = ajv.compile(definition);
  } catch (error) {
    last.error = 'error: ' + error.message.replace(/\s+/g, ' ');
  }
  return last;
}

process.stdout.write(lines.map(line => {
  const [definition, value] = JSON.parse(line);
  const { check, error } = checker(definition);

  return (error || check(value)) + '\n';
}).join(''));
