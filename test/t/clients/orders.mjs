// The orders of t/041: what happens to each, and what it is then, as the programs of an application say it. Nothing here
// asks a database, so this is the oracle for what one says.
//
// Version 1 has prices in the major unit of the currency, version 2 has cents, and knows the country of every buyer.

export const formatVersion = { 1: 'FV2024-10-01', 2: 'FV2025-10-01' };

export const initialState = () => ({ status: 'New' });

// Every 97th order cannot be migrated. By turns, migrate refuses its state for want of a country, or apply an item without a price.
const lacksCountry = number => number % 194 === 97;
const lacksPrice = number => number % 194 === 0;

// Quarters have no error of rounding, here nor there.
const price = (number, place) => (number % 40 + place) / 4;

// The event at some place, from 1, of the order of this number, as a program of that version writes it.
export function eventOf(version, number, place, isLast) {
  const sku = `Größe "${number}"\\${place}`;
  const quantity = 1 + (number + place) % 3;

  if (place === 1) {
    const country = lacksCountry(number) ? {} : { country: ['AT', 'CH', 'DE'][number % 3] };

    return version === 1 ?
      { type: 'OrderPlaced', data: { customer: `Käufer's ${number}`, ...country } } :
      { type: 'OrderPlaced', data: { buyer: { name: `Käufer's ${number}`, ...country } } };
  }
  if (isLast && number % 5 === 0) return { type: 'OrderPaid', data: {} };
  if (version === 2) return { type: 'ItemAdded', data: { sku, quantity, cents: 100 * price(number, place) } };
  return { type: 'ItemAdded', data: place === 2 && lacksPrice(number) ? { sku, quantity } : { sku, quantity, price: price(number, place) } };
}

// The events with which an order begins: two to five.
export function firstEvents(version, number) {
  const count = 2 + number % 4;

  return Array.from({ length: count }, (_, i) => eventOf(version, number, i + 1, i + 1 === count && count > 2));
}

// What an event makes of a state, in either version.
export const evolve = {
  1: (state, { type, data }) => {
    switch (type) {
      case 'OrderPlaced': return { status: 'Placed', customer: data.customer, country: data.country ?? null, items: [], total: 0 };
      case 'ItemAdded':
        if (data.price === undefined) throw new Error('an item without a price');
        return { ...state, items: [...state.items, data], total: state.total + data.quantity * data.price };
      case 'OrderPaid': return { ...state, status: 'Paid' };
      default: throw new Error(`version 1 has no ${type}`);
    }
  },
  2: (state, { type, data }) => {
    switch (type) {
      case 'OrderPlaced': return { status: 'Placed', buyer: data.buyer, lines: [], cents: 0 };
      case 'ItemAdded': return { ...state, lines: [...state.lines, data], cents: state.cents + data.quantity * data.cents };
      case 'OrderPaid': return { ...state, status: 'Paid' };
      default: throw new Error(`version 2 has no ${type}`);
    }
  },
};

// The state of version 2 for one of version 1.
export function migrate({ status, customer, country, items, total }) {
  if (country === null) throw new Error('no country');
  return {
    status,
    buyer: { name: customer, country },
    lines: items.map(({ sku, quantity, price }) => ({ sku, quantity, cents: 100 * price })),
    cents: 100 * total,
  };
}

// The state of version 2 for the events that both have written; raises where version 1 or migrate refuses.
export function stateOf(events) {
  const before = events.filter(event => event.version === 1);
  const after = events.filter(event => event.version === 2);
  const start = before.length === 0 ? initialState() : migrate(before.reduce(evolve[1], initialState()));

  return after.reduce(evolve[2], start);
}
