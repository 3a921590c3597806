// Mounts the page.

import { mount } from 'svelte';
import App from './components/App.svelte';
import './styles.css';

const target = document.getElementById('app');
if (!target) throw new Error('index.html has no element #app');
mount(App, { target });
