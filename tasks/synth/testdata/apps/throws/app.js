console.log('about to fail');
throw new Error('the bucket name is taken: shop-assets');
