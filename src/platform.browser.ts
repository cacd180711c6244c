// The browser half of the platform.
export {};
