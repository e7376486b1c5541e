// A binary heap that knows where each item stands, so that any item can leave it at once (a cancelled request must).

/** An item of the heap; `heapSlot` belongs to the heap while it is in it. An item may be in one such heap at a time. */
export interface HeapItem {
  heapSlot: number;
}

export interface IndexedHeap<Item extends HeapItem> {
  size(): number;
  /** The first in order; `undefined` when empty. */
  first(): Item | undefined;
  push(item: Item): void;
  /** Removes and returns the first. */
  shift(): Item | undefined;
  remove(item: Item): void;
}

/** `before(a, b)` tells whether `a` comes out ahead of `b`. Every change takes O(log n). */
export function createIndexedHeap<Item extends HeapItem>(before: (a: Item, b: Item) => boolean): IndexedHeap<Item> {
  const items: Item[] = [];

  function put(item: Item, slot: number): void {
    items[slot] = item;
    item.heapSlot = slot;
  }
  function rise(item: Item, from: number): void {
    let slot = from;
    while (slot > 0) {
      const parentSlot = (slot - 1) >> 1;
      const parent = items[parentSlot] as Item;
      if (!before(item, parent)) break;
      put(parent, slot);
      slot = parentSlot;
    }
    put(item, slot);
  }
  function sink(item: Item, from: number): void {
    let slot = from;
    for (;;) {
      let childSlot = 2 * slot + 1;
      if (childSlot >= items.length) break;
      if (childSlot + 1 < items.length && before(items[childSlot + 1] as Item, items[childSlot] as Item)) childSlot++;
      const child = items[childSlot] as Item;
      if (!before(child, item)) break;
      put(child, slot);
      slot = childSlot;
    }
    put(item, slot);
  }
  function remove(item: Item): void {
    const slot = item.heapSlot;
    const last = items.pop() as Item;
    item.heapSlot = -1;
    if (last === item) return;
    if (slot > 0 && before(last, items[(slot - 1) >> 1] as Item)) rise(last, slot);
    else sink(last, slot);
  }

  return {
    size: () => items.length,
    first: () => items[0],
    push: (item) => {
      items.push(item);
      rise(item, items.length - 1);
    },
    shift: () => {
      const item = items[0];
      if (item !== undefined) remove(item);
      return item;
    },
    remove,
  };
}
