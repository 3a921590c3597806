// What the page keeps in the browser: drafts, unsent events, and finished tasks that wait to be sent.
// A Store is a few keyed tables with atomic batches; IndexedDB in a browser, a Map where there is none.

const TABLES = ['drafts', 'events', 'outbox'] as const;
export type Table = (typeof TABLES)[number];

export type Write = { put: Table; key: string; value: object } | { delete: Table; key: string };

export interface Store {
  /** Whether what is written outlives the page. */
  readonly durable: boolean;
  get<T>(table: Table, key: string): Promise<T | undefined>;
  /** All values whose key begins with `prefix`, in the order of their keys. */
  list<T>(table: Table, prefix?: string): Promise<T[]>;
  /** All writes or none. Resolves when the browser says that they are stored. */
  write(writes: Write[]): Promise<void>;
  close(): void;
}

const PREFIX_END = '\uffff';

class IndexedDbStore implements Store {
  readonly durable = true;
  readonly #db: IDBDatabase;

  constructor(db: IDBDatabase) {
    this.#db = db;
    // Another tab wants to change the layout (a newer page): let it, this one says so on its next write.
    db.onversionchange = () => db.close();
  }

  async get<T>(table: Table, key: string): Promise<T | undefined> {
    const transaction = this.#db.transaction(table, 'readonly');
    return (await result(transaction.objectStore(table).get(key))) as T | undefined;
  }

  async list<T>(table: Table, prefix = ''): Promise<T[]> {
    const range = IDBKeyRange.bound(prefix, prefix + PREFIX_END);
    const transaction = this.#db.transaction(table, 'readonly');
    return (await result(transaction.objectStore(table).getAll(range))) as T[];
  }

  async write(writes: Write[]): Promise<void> {
    if (!writes.length) return;
    const tables = [...new Set(writes.map((write) => ('put' in write ? write.put : write.delete)))];
    // Finished work must survive even a power cut; the rest is worth a second of it.
    const durability = tables.includes('outbox') ? 'strict' : 'relaxed';
    const transaction = this.#db.transaction(tables, 'readwrite', { durability });
    const done = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () =>
        reject(transaction.error ?? new Error('the browser aborted a write'));
    });
    try {
      for (const write of writes) {
        if ('put' in write) transaction.objectStore(write.put).put(write.value, write.key);
        else transaction.objectStore(write.delete).delete(write.key);
      }
    } catch (error) {
      transaction.abort(); // or the writes before this one would stay
      await done.catch(() => undefined);
      throw error;
    }
    await done;
  }

  close(): void {
    this.#db.close();
  }
}

/** Forgets everything with the page: for browsers that refuse IndexedDB; the page says so. */
export class MemoryStore implements Store {
  readonly durable = false;
  readonly #tables = new Map<Table, Map<string, object>>(TABLES.map((name) => [name, new Map()]));

  async get<T>(table: Table, key: string): Promise<T | undefined> {
    return structuredClone(this.#tables.get(table)?.get(key)) as T | undefined;
  }

  async list<T>(table: Table, prefix = ''): Promise<T[]> {
    const rows = [...(this.#tables.get(table) ?? [])].filter(([key]) => key.startsWith(prefix));
    rows.sort(([a], [b]) => (a < b ? -1 : 1));
    return rows.map(([, value]) => structuredClone(value) as T);
  }

  async write(writes: Write[]): Promise<void> {
    for (const write of writes) {
      if ('put' in write) this.#tables.get(write.put)?.set(write.key, structuredClone(write.value));
      else this.#tables.get(write.delete)?.delete(write.key);
    }
  }

  close(): void {}
}

/**
 * Opens the store of one person on one service, so that two people who share a computer, or two
 * workspaces served on the same port, never see each other's drafts.
 */
export async function openStore(
  owner: string,
  factory: IDBFactory | undefined = globalThis.indexedDB,
): Promise<Store> {
  if (!factory) return new MemoryStore();
  try {
    const request = factory.open(`maskwheel:${owner}`, 1);
    request.onupgradeneeded = () => {
      for (const name of TABLES) {
        if (!request.result.objectStoreNames.contains(name)) request.result.createObjectStore(name);
      }
    };
    return new IndexedDbStore(await result(request));
  } catch (error) {
    console.warn('maskwheel: this browser keeps nothing between visits', error);
    return new MemoryStore();
  }
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error('IndexedDB failed'));
  });
}
