/** Shown on the front page. */
export const greeting = 'Welcome to the shop';
