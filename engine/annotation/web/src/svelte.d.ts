// Tells the type checker what importing a .svelte file gives, where it is not asked through svelte-check.
declare module '*.svelte' {
  import type { Component } from 'svelte';
  const component: Component<Record<string, unknown>>;
  export default component;
}
